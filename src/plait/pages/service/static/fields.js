// The controls of a row's columns. A field has a cell, or is empty; what it has can be left out and put back.

import { Refused } from "./client.js";
import { canRecord, record } from "./recorder.js";
import { element, facts, say, t } from "./text.js";

const NUMBER = /^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$/;

export class Form {
  constructor(root) {
    this.root = root;
    this.changes = 0; // so many times the row became another one
    this.fields = [...root.querySelectorAll(".field")].map((field) => {
      return field.dataset.media ? new MediaField(field, this) : new PlainField(field, this);
    });
    this.byColumn = new Map(this.fields.map((field) => [field.column, field]));
  }

  // The fields whose cells belong to the row.
  get used() {
    return this.fields.filter((field) => field.isUsed);
  }

  get bytes() {
    return this.used.reduce((sum, field) => sum + field.bytes, 0);
  }

  // The cells of the row as they are now: {column, files} or {column, cell}.
  get cells() {
    return this.used.map(({ column, files, cell }) => ({ column, files, cell }));
  }

  // The row of this moment as JSON has it, in which files are data URIs.
  async row() {
    const pairs = this.cells.map(async ({ column, files, cell }) => [column, files ? await encoded(column, files) : cell]);
    return Object.fromEntries(await Promise.all(pairs)); // a column may be called __proto__
  }

  clear() {
    for (const field of this.fields) field.clear();
    this.changed();
  }

  clearErrors() {
    for (const field of this.fields) field.showError("");
  }

  changed() {
    this.changes++;
    this.root.dispatchEvent(new CustomEvent("rowchange", { bubbles: true }));
  }
}

class Field {
  constructor(root, form) {
    this.root = root;
    this.form = form;
    this.column = root.dataset.column;
    this.kind = root.dataset.kind;
    this.name = root.querySelector(".name");
    this.error = root.querySelector(".error");
    this.leaveOut = root.querySelector(".leave-out");
    this.leaveOut.addEventListener("click", () => this.toggle(!this.isLeftOut));
  }

  get isLeftOut() {
    return this.leaveOut.getAttribute("aria-pressed") === "true";
  }

  get isUsed() {
    return this.isFilled && !this.isLeftOut;
  }

  toggle(out) {
    this.setLeftOut(out);
    this.form.changed();
  }

  setLeftOut(out) {
    this.leaveOut.setAttribute("aria-pressed", String(out));
    this.leaveOut.textContent = out ? t("left_out") : t("leave_out");
    this.root.classList.toggle("is-left-out", out);
    if (out) this.showError("");
  }

  // Show that the cell is another one: it counts again, and an error of the last one is gone.
  refresh() {
    this.setLeftOut(false);
    this.showError("");
    this.leaveOut.hidden = !this.isFilled;
    this.root.classList.toggle("is-filled", this.isFilled);
  }

  changed() {
    this.refresh();
    this.form.changed();
  }

  showError(problem) {
    this.error.replaceChildren();
    this.error.hidden = !problem;
    this.root.classList.toggle("is-wrong", Boolean(problem));
    const hint = `${this.input.id}-hint`;
    if (!problem) {
      this.input.removeAttribute("aria-invalid");
      this.input.setAttribute("aria-describedby", hint);
      return;
    }
    this.root.hidden = false; // a filter may have hidden it
    this.input.setAttribute("aria-invalid", "true");
    this.input.setAttribute("aria-describedby", `${this.error.id} ${hint}`);
    this.error.append(element("span", {}, problem));
    if (this.isFilled) {
      const away = () => { this.toggle(true); this.leaveOut.focus(); };
      this.error.append(element("button", { type: "button", onclick: away }, t("error.leave_out")));
    }
  }
}

class PlainField extends Field {
  constructor(root, form) {
    super(root, form);
    this.input = root.querySelector("textarea, input");
    this.buttons = [...root.querySelectorAll(".value")];
    this.input.addEventListener("input", () => this.changed());
    for (const button of this.buttons) {
      button.addEventListener("click", () => {
        const same = this.input.value === button.dataset.value;
        this.input.value = same ? "" : button.dataset.value;
        this.changed();
      });
    }
  }

  get isFilled() {
    // A date that is typed half has no value, but is no empty field either.
    return this.input.value.trim() !== "" || this.input.validity.badInput;
  }

  get bytes() {
    return this.input.value.length;
  }

  // The cell as JSON has it.
  get cell() {
    const text = this.text;
    // A plain number means the same in every table. Any other text is read as the table writes numbers.
    if (this.kind === "number") return numberIn(text) ?? text;
    if (this.kind === "vector") return vectorIn(text) ?? text;
    return text;
  }

  get text() {
    return this.input.value;
  }

  fill(cell) {
    let text = Array.isArray(cell) ? cell.join(", ") : String(cell);
    if (this.kind === "date") text = text.slice(0, 10);
    if (this.kind === "datetime") text = text.length === 10 ? `${text}T00:00:00` : text.slice(0, 19);
    this.input.value = text;
    this.refresh();
  }

  clear() {
    this.input.value = "";
    this.refresh();
  }

  refresh() {
    super.refresh();
    for (const button of this.buttons ?? []) {
      button.setAttribute("aria-pressed", String(button.dataset.value === this.input.value));
    }
  }
}

// Return the number that a text writes; null for any other text, and for numbers that JSON cannot hold.
function numberIn(text) {
  return NUMBER.test(text) && Number.isFinite(Number(text)) ? Number(text) : null;
}

// Return the numbers that a text writes, with or without brackets; null for any other text.
function vectorIn(text) {
  const entries = text.replace(/[[\]]/g, " ").trim().split(/[\s,;]+/).map(numberIn);
  return entries.includes(null) ? null : entries;
}

class MediaField extends Field {
  constructor(root, form) {
    super(root, form);
    this.files = [];
    this.several = "several" in root.dataset;
    this.family = root.dataset.media.split("/")[0];
    this.input = root.querySelector(".file");
    this.drop = root.querySelector(".drop");
    this.previews = root.querySelector(".previews");
    this.input.addEventListener("change", () => this.take(this.input));
    this.addDrop();
    this.addCapture();
    this.addPaste();
  }

  get isFilled() {
    return this.files.length > 0;
  }

  get bytes() {
    return this.files.reduce((sum, file) => sum + Math.ceil(file.size / 3) * 4, 0);
  }

  // Whether files of a type belong here. A container of video may hold sound alone.
  takes(file) {
    const type = file.type;
    if (type === "" || type === "application/octet-stream") return true;
    if (this.family === "audio" && type.startsWith("video/")) return true;
    if (this.family === "video" && type === "image/gif") return true;
    if (type === "application/ogg") return this.family !== "image";
    return !["image", "audio", "video"].includes(this.family) || type.startsWith(`${this.family}/`);
  }

  take(input) {
    const files = [...input.files];
    input.value = ""; // the same file may be chosen again
    if (files.length) this.add(files);
  }

  // Put in files that somebody chose, dropped or recorded.
  add(files) {
    const wrong = files.find((file) => !this.takes(file));
    if (wrong) {
      const type = wrong.type || t("media.unknown_type");
      this.showError(t("media.wrong_kind", { kind: t(`kind.${this.kind}`), type }));
      say(this.error.textContent);
      return;
    }
    this.files = this.several ? [...this.files, ...files] : files.slice(0, 1);
    this.show();
    this.changed();
    say(t("media.added", { column: this.column, file: files[0].name }));
  }

  fill(files) {
    this.files = files;
    this.show();
    this.refresh();
  }

  clear() {
    this.fill([]);
  }

  show() {
    for (const shown of this.previews.querySelectorAll("[src]")) URL.revokeObjectURL(shown.src);
    this.previews.replaceChildren(...this.files.map((file) => this.preview(file)));
  }

  preview(file) {
    const remove = element("button", { type: "button", class: "remove", "aria-label": t("media.remove", { file: file.name }) }, "×");
    remove.addEventListener("click", () => {
      this.files = this.files.filter((other) => other !== file);
      this.show();
      this.changed();
      this.input.focus();
    });
    const caption = element("figcaption", {}, element("span", { class: "file-name" }, file.name), ` ${size(file.size)}`);
    return element("figure", { class: "preview" }, player(URL.createObjectURL(file), this.family, file.name), caption, remove);
  }

  addDrop() {
    const over = (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      this.drop.classList.add("is-over");
    };
    this.drop.addEventListener("dragenter", over);
    this.drop.addEventListener("dragover", over);
    this.drop.addEventListener("dragleave", () => this.drop.classList.remove("is-over"));
    this.drop.addEventListener("drop", (event) => {
      event.preventDefault();
      this.drop.classList.remove("is-over");
      if (event.dataTransfer.files.length) this.add([...event.dataTransfer.files]);
    });
  }

  // Phones open their camera for an input with `capture`. Elsewhere, and for sound and video where the browser
  // allows it, the page records.
  addCapture() {
    const button = this.root.querySelector(".record");
    const capture = this.root.querySelector(".capture");
    const isPhone = matchMedia("(pointer: coarse)").matches;
    const byPhone = isPhone && (this.family === "image" || !canRecord());
    if (!byPhone && !canRecord()) return;
    button.hidden = false;
    capture.addEventListener("change", () => this.take(capture));
    button.addEventListener("click", () => (byPhone ? capture.click() : this.record(button)));
  }

  async record(button) {
    this.showError("");
    button.disabled = true;
    try {
      const file = await record(this.family, this.root.querySelector(".recorder"));
      if (file) this.add([file]);
    } catch {
      this.showError(t("record.denied"));
      say(t("record.denied"));
    }
    button.disabled = false;
    button.focus();
  }

  addPaste() {
    const button = this.root.querySelector(".paste");
    if (!button || !navigator.clipboard?.read) return;
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        const file = await clipboardImage();
        if (file) this.add([file]);
        else this.showError(t("paste.nothing"));
      } catch {
        this.showError(t("paste.denied"));
      }
    });
  }
}

async function clipboardImage() {
  for (const entry of await navigator.clipboard.read()) {
    const type = entry.types.find((name) => name.startsWith("image/"));
    if (type) return new File([await entry.getType(type)], `pasted.${type.split("/")[1]}`, { type });
  }
  return null;
}

// What plays or shows a file, or says that this browser cannot.
export function player(url, family, name) {
  const unable = (event) => event.target.replaceWith(element("span", { class: "no-preview" }, t("media.no_preview")));
  if (family === "image") return element("img", { src: url, alt: name, onerror: unable });
  const tag = family === "video" ? "video" : "audio";
  return element(tag, { src: url, controls: true, preload: "metadata", playsinline: true, "aria-label": name, onerror: unable });
}

// Return the files of a cell as JSON has them: a data URI, or a list. Raises `Refused` if one is gone.
async function encoded(column, files) {
  try {
    const uris = await Promise.all(files.map(dataURI));
    return uris.length === 1 ? uris[0] : uris;
  } catch {
    // The file was moved or changed after it was chosen.
    const problem = t("media.unreadable");
    throw new Refused(problem, 0, [{ column, problem }]);
  }
}

function dataURI(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

function size(bytes) {
  const format = new Intl.NumberFormat(facts.language, { maximumSignificantDigits: 2 });
  return bytes < 1e6 ? `${format.format(Math.max(bytes, 100) / 1e3)} kB` : `${format.format(bytes / 1e6)} MB`;
}
