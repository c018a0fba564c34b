// Rows of the test table that fill in the form.

import { Latest } from "./latest.js";
import { element, facts, t } from "./text.js";

// Offer the examples; `chosen` is called with the one that was filled in.
export function offer(form, chosen) {
  if (!facts.examples.length) return;
  const list = document.querySelector(".examples");
  const clicks = new Latest();
  // What somebody does to the row meanwhile counts more than an example whose files have not come yet.
  form.root.addEventListener("rowchange", () => clicks.drop());
  for (const example of facts.examples) {
    list.append(element("li", {}, button(example, form, clicks, chosen)));
  }
  document.getElementById("examples").hidden = false;
}

function button(example, form, clicks, chosen) {
  const truth = facts.answers.map(({ target }) => example.values[target]).filter((cell) => cell !== undefined);
  const words = [truth, firstText(example, form)].flat().filter(Boolean).map(String);
  const label = t("examples.row", { number: example.row + 1, shown: words.join(", ") || t("examples.number", { number: example.row + 1 }) });
  const made = element("button", { type: "button", class: "example", "aria-label": label });
  made.append(thumbnail(example, form), element("span", { class: "example-words" }, truth.length ? [truth[0]].flat().join(", ") : t("examples.number", { number: example.row + 1 })));
  made.addEventListener("click", async () => {
    const isLatest = clicks.begin();
    made.setAttribute("aria-busy", "true");
    const files = await downloaded(example);
    made.removeAttribute("aria-busy");
    if (!isLatest()) return;
    fill(example, files, form);
    chosen(example);
  });
  return made;
}

function firstText(example, form) {
  const field = form.fields.find(({ kind, column }) => kind === "text" && example.values[column] !== undefined);
  return field ? String(example.values[field.column]).slice(0, 80) : "";
}

// Show an example's image or video, or the beginning of its text, or what kind of file it has.
function thumbnail(example, form) {
  for (const field of form.fields) {
    const url = example.files[field.column]?.[0];
    if (url && field.family === "image") return element("img", { src: url, alt: "", loading: "lazy" });
    // Without a time, some browsers show no frame until a video is played.
    if (url && field.family === "video") return element("video", { src: `${url}#t=0.1`, preload: "metadata", "aria-hidden": "true", tabindex: "-1" });
  }
  const words = firstText(example, form) || mediaKinds(example, form);
  return element("span", { class: "example-text", "aria-hidden": "true" }, words);
}

function mediaKinds(example, form) {
  const kinds = form.fields.filter(({ column }) => example.files[column]?.length).map(({ kind }) => t(`kind.${kind}`));
  return [...new Set(kinds)].join(", ");
}

// Return the files of an example by their columns.
async function downloaded(example) {
  const pairs = Object.entries(example.files).map(async ([column, urls]) => {
    const files = await Promise.all(urls.map(download));
    return [column, files.filter(Boolean)];
  });
  return Promise.all(pairs);
}

// Fill in an example at once, so that the row is never a mixture of two.
function fill(example, files, form) {
  for (const field of form.fields) field.clear();
  for (const [column, cell] of Object.entries(example.values)) {
    const field = form.byColumn.get(column);
    if (field && !field.family) field.fill(cell);
  }
  for (const [column, chosen] of files) form.byColumn.get(column)?.fill(chosen);
  form.changed();
}

async function download(url) {
  const response = await fetch(url).catch(() => null);
  if (!response?.ok) return null;
  const blob = await response.blob();
  return new File([blob], url.split("/").at(-1), { type: blob.type });
}
