// What each input contributes: the row is predicted again without it.

import { fileOf, inWords, isFile } from "./answers.js";
import { predictEach } from "./client.js";
import { element, facts, number, probability, say, t } from "./text.js";

const PLAIN = ["number", "category", "date", "datetime"];

export class Effects {
  constructor(host, form, failed) {
    this.host = host;
    this.form = form;
    this.failed = failed;
  }

  hide() {
    this.answer = null;
    this.host.hidden = true;
    this.host.replaceChildren();
  }

  // Offer to recompute `answer`, which is that of the form's row, without each input.
  offer(answer) {
    this.answer = answer;
    const used = this.form.used;
    this.subsets = used.map((field) => ({ words: t("effects.without", { column: field.column }), columns: new Set([field.column]) }));
    const plain = used.filter((field) => PLAIN.includes(field.kind));
    if (plain.length > 1) {
      const columns = new Set(plain.map((field) => field.column));
      this.subsets.push({ words: t("effects.plain", { count: plain.length }), columns });
    }
    if (!this.subsets.length) {
      this.hide();
      return;
    }
    this.list = element("ul", { class: "effects" }, ...this.subsets.map((subset) => this.line(subset)));
    const all = element("button", { type: "button", onclick: () => this.compute(this.subsets, all) }, t("effects.all"));
    const head = element("div", { class: "effects-head" }, element("h3", {}, t("effects")), all);
    this.host.replaceChildren(head, element("p", { class: "muted" }, t("effects.note")), this.list);
    this.host.hidden = false;
  }

  line(subset) {
    subset.effect = element("div", { class: "effect" });
    subset.button = element("button", { type: "button", class: "quiet", onclick: () => this.compute([subset], subset.button) }, t("effects.compute"));
    subset.button.setAttribute("aria-label", `${t("effects.compute")}: ${subset.words}`);
    subset.row = element("li", {}, element("span", { class: "without" }, subset.words), subset.effect, subset.button);
    return subset.row;
  }

  async compute(subsets, button) {
    const before = this.answer;
    button.disabled = true;
    try {
      const row = await this.form.row();
      const rows = subsets.map(({ columns }) => Object.fromEntries(Object.entries(row).filter(([name]) => !columns.has(name))));
      await predictEach(rows, (place, answer) => {
        subsets[place].change = this.show(subsets[place], before, answer);
      });
    } catch (error) {
      button.disabled = false;
      if (this.answer === before) this.failed(error);
      return;
    }
    button.disabled = false;
    if (this.answer !== before) return; // the lines belong to an answer that is gone
    if (subsets.length > 1) this.sort(subsets);
    else say(`${subsets[0].words}: ${subsets[0].effect.textContent}`);
  }

  // Put the largest changes first.
  sort(subsets) {
    subsets.sort((a, b) => b.change - a.change);
    this.list.replaceChildren(...subsets.map((subset) => subset.row));
    say(t("effects.done", { count: subsets.length, column: subsets[0].words }));
  }

  // Show one recomputed answer, and return how large its change is.
  show(subset, before, after) {
    let largest = 0;
    const lines = facts.answers.map((target) => {
      const [line, change] = difference(target, before, after);
      largest = Math.max(largest, change);
      if (facts.answers.length > 1) line.prepend(element("span", { class: "of-target" }, target.target));
      return line;
    });
    subset.effect.replaceChildren(...lines);
    subset.button.hidden = true;
    return largest;
  }
}

// Return what shows the change of a target's answer, and the size of the change between 0 and 1.
function difference(target, before, after) {
  const words = inWords(target, before);
  const now = inWords(target, after);
  const cell = before[target.target];
  if (target.probabilities.length) return ofProbability(target, before, after, words, now);
  if (typeof cell === "number" && typeof after[target.target] === "number") {
    const line = element("p", {}, changed("", number(cell), number(after[target.target])));
    return [line, Math.abs(after[target.target] - cell) / (Math.abs(cell) + Math.abs(after[target.target]) || 1)];
  }
  const isSame = cell === after[target.target];
  if (!isSame && isFile(after[target.target])) return [element("p", {}, fileOf(target, after[target.target])), 1];
  return [element("p", {}, isSame ? t("effects.same") : changed("", shortened(words), shortened(now))), isSame ? 0 : 1];
}

// Follow the class that is answered; among labels, the one whose probability changes most.
function ofProbability(target, before, after, answered, now) {
  let followed = target.probabilities.find(({ label }) => label === String(before[target.target]));
  if (!followed) {
    const change = ({ column }) => Math.abs(after[column] - before[column]);
    followed = target.probabilities.reduce((most, next) => (change(next) > change(most) ? next : most));
  }
  const [from, to] = [before[followed.column] ?? 0, after[followed.column] ?? 0];
  const track = element("span", { class: "change", "aria-hidden": "true" });
  track.style.setProperty("--from", from);
  track.style.setProperty("--to", to);
  track.classList.add(to < from ? "is-less" : "is-more");
  const [shownFrom, shownTo] = [probability(from), probability(to)];
  const line = element("p", {}, track, shownFrom === shownTo ? t("effects.same") : changed(followed.label, shownFrom, shownTo));
  if (now !== answered) {
    const top = target.probabilities.find(({ label }) => label === now);
    const words = top ? t("effects.now", { answer: now, p: probability(after[top.column]) }) : t("effects.now_labels", { answer: now });
    line.append(element("span", { class: "now" }, words));
  }
  return [line, Math.abs(to - from)];
}

function changed(answer, before, after) {
  return t("effects.change", { answer, before, after }).trim();
}

function shortened(words) {
  return words.length > 80 ? `${words.slice(0, 80)}…` : words;
}
