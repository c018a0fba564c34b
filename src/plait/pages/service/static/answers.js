// Show what the model answers to a row: its answer for each target, with probabilities where there are any.

import { player } from "./fields.js";
import { element, facts, number, probability, t } from "./text.js";

const SHOWN = 8; // classes that are shown at first

// Return a target's answer in words, without its probability.
export function inWords(target, answer) {
  const cell = answer[target.target];
  if (cell === null || cell === undefined) return t("answer.none");
  if (isFile(cell)) return t(`kind.${familyOf(cell)}`);
  if (Array.isArray(cell)) return cell.length ? cell.join(", ") : t("answer.no_labels");
  return typeof cell === "number" ? number(cell) : String(cell);
}

export function isFile(cell) {
  return typeof cell === "string" && cell.startsWith("data:");
}

function familyOf(uri) {
  return ["image", "video"].find((family) => uri.startsWith(`data:${family}/`)) ?? "audio";
}

// Return what shows or plays an answer that is a file.
export function fileOf(target, uri) {
  return player(uri, familyOf(uri), target.target);
}

// Return the probabilities of a target, the largest first: [{label, p}].
export function ranked(target, answer) {
  const classes = target.probabilities.map(({ label, column }) => ({ label, p: answer[column] ?? 0 }));
  return classes.sort((a, b) => b.p - a.p);
}

export function spoken(answer) {
  return facts.answers
    .map((target) => {
      const words = t("answer.spoken", { target: target.target, answer: inWords(target, answer) });
      const p = certainty(target, answer);
      return p === null ? words : `${words}, ${t("answer.probability", { p: probability(p) })}`;
    })
    .join("; ");
}

// Return the probability of the class that is answered; null for other answers, and for several labels.
function certainty(target, answer) {
  const cell = answer[target.target];
  const answered = target.probabilities.find(({ label }) => label === String(cell));
  return answered && !Array.isArray(cell) ? (answer[answered.column] ?? null) : null;
}

// Return what shows an answer. `example` is the row of the table that was filled in, if it comes from there.
export function shown(answer, example) {
  const cards = facts.answers.map((target) => card(target, answer, example));
  const others = unclaimed(answer);
  if (others.length) cards.push(element("dl", { class: "others" }, ...others));
  return cards;
}

function card(target, answer, example) {
  const cell = answer[target.target];
  const truth = example?.values[target.target];
  const article = element("article", { class: "target" }, element("h3", {}, target.target));
  if (isFile(cell)) {
    article.append(fileOf(target, cell));
  } else {
    const words = element("p", { class: isLong(cell) ? "top-answer long" : "top-answer" }, inWords(target, answer));
    const p = certainty(target, answer);
    if (p !== null) words.append(element("span", { class: "certainty" }, t("answer.probability", { p: probability(p) })));
    article.append(words);
  }
  if (truth !== undefined && truth !== null) article.append(compared(target, cell, truth));
  for (const url of example?.files[target.target] ?? []) {
    const name = t("answer.truth", { truth: target.target });
    article.append(element("p", { class: "truth" }, t("answer.truth", { truth: "" })), player(url, facts.media[target.target] ?? "audio", name));
  }
  if (target.probabilities.length) article.append(...bars(target, answer));
  return article;
}

function isLong(cell) {
  return typeof cell === "string" && cell.length > 60;
}

function compared(target, cell, truth) {
  const isRight = JSON.stringify(cell) === JSON.stringify(truth) || String(cell) === String(truth);
  const words = typeof truth === "number" ? number(truth, 6) : Array.isArray(truth) ? truth.join(", ") : String(truth);
  if (isRight && target.probabilities.length) return element("p", { class: "truth is-right" }, t("answer.right"));
  return element("p", { class: "truth" }, t("answer.truth", { truth: words }));
}

function bars(target, answer) {
  const classes = ranked(target, answer);
  const answered = [answer[target.target]].flat().map(String);
  const list = element("ol", { class: "bars" });
  for (const [place, { label, p }] of classes.entries()) {
    const bar = element("span", { class: "bar", "aria-hidden": "true" });
    bar.style.setProperty("--share", p);
    const row = element("li", { class: answered.includes(label) ? "is-answer" : "" }, element("span", { class: "label" }, label), bar, element("span", { class: "p" }, probability(p)));
    row.hidden = place >= SHOWN;
    list.append(row);
  }
  if (classes.length <= SHOWN) return [list];
  const more = element("button", { type: "button", class: "quiet", "aria-expanded": "false" }, t("answer.more", { count: classes.length }));
  more.addEventListener("click", () => {
    const isOpen = more.getAttribute("aria-expanded") === "true";
    more.setAttribute("aria-expanded", String(!isOpen));
    more.textContent = isOpen ? t("answer.more", { count: classes.length }) : t("answer.fewer");
    [...list.children].forEach((row, place) => { row.hidden = isOpen && place >= SHOWN; });
  });
  return [list, more];
}

// Return the answer's other columns, such as the cosine of aligned cells.
function unclaimed(answer) {
  const claimed = new Set(["problem", ...facts.ids]);
  for (const { target, probabilities } of facts.answers) {
    claimed.add(target);
    for (const { column } of probabilities) claimed.add(column);
  }
  const parts = [];
  for (const [name, cell] of Object.entries(answer)) {
    if (claimed.has(name) || cell === null) continue;
    const words = typeof cell === "number" ? number(cell) : String(cell);
    parts.push(element("dt", {}, name), element("dd", {}, words));
  }
  return parts;
}
