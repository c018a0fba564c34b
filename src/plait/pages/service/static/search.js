// Search an index: a query of aligned columns, and a gallery of the rows that fit it best.

import { post } from "./client.js";
import { element, facts, number, say, t } from "./text.js";
import { player } from "./fields.js";
import { Latest } from "./latest.js";

const LONGEST = 200; // characters of a cell

export class Search {
  constructor(form, showErrors) {
    this.form = form;
    this.showErrors = showErrors;
    this.requests = new Latest();
    this.results = document.getElementById("results");
    this.columns = document.getElementById("in");
    this.alignment = document.getElementById("alignment");
    this.alignment?.addEventListener("change", () => this.align());
    this.align();
    form.root.addEventListener("submit", (event) => {
      event.preventDefault();
      this.run();
    });
  }

  // Show the columns of the alignment that is chosen. A search of another one is not wanted any more.
  align() {
    this.requests.drop();
    this.results.removeAttribute("aria-busy");
    const name = this.alignment?.value ?? Object.keys(facts.alignments)[0];
    const aligned = facts.alignments[name];
    for (const field of this.form.fields) {
      const belongs = aligned.includes(field.column);
      field.root.hidden = !belongs;
      if (!belongs) field.clear();
    }
    this.form.changed();
    const options = aligned.map((column) => element("option", { value: column }, column));
    this.columns.replaceChildren(this.columns.options[0], ...options);
  }

  // A query that has all columns leaves no other one to search: media come first, for they can be shown.
  chooseColumn(row) {
    const columns = [...this.columns.options].map((option) => option.value).filter(Boolean);
    if (this.columns.value || columns.some((column) => !(column in row))) return;
    this.columns.value = columns.find((column) => facts.media[column]) ?? columns[0];
  }

  async run() {
    const isLatest = this.requests.begin();
    const { changes } = this.form;
    this.form.clearErrors();
    this.results.setAttribute("aria-busy", "true");
    say(t("search.running"));
    try {
      const row = await this.form.row();
      this.chooseColumn(row);
      const asked = new URLSearchParams({ k: document.getElementById("k").value });
      if (this.columns.value) asked.set("in", this.columns.value);
      if (this.alignment) asked.set("alignment", this.alignment.value);
      const gallery = await post(`search?${asked}`, JSON.stringify(row));
      if (isLatest()) this.show(gallery);
    } catch (error) {
      if (isLatest()) this.showErrors(error, this.form, this.results, this.form.changes === changes);
    } finally {
      if (isLatest()) this.results.removeAttribute("aria-busy");
    }
  }

  show({ rows, files = [] }) {
    if (!rows.length) {
      this.results.replaceChildren(element("p", { class: "muted" }, t("search.none")));
    } else {
      const cards = rows.map((row, place) => this.card(row, files[place] ?? {}, place));
      this.results.replaceChildren(element("ol", { class: "gallery" }, ...cards));
    }
    say(t("search.found", { count: rows.length }));
  }

  card(row, files, place) {
    const hit = element("li", { class: "hit" });
    for (const [column, urls] of Object.entries(files)) {
      const label = `${t("search.result", { number: place + 1 })}: ${column}`;
      for (const url of [urls].flat()) hit.append(player(url, facts.media[column], label));
    }
    const cells = element("dl", {});
    for (const [column, cell] of Object.entries(row)) {
      if (column === "score" || column in files || cell === null || cell === "") continue;
      const words = Array.isArray(cell) ? cell.join(", ") : String(cell).replace(/T00:00:00$/, "");
      cells.append(element("dt", {}, column), element("dd", {}, words.length > LONGEST ? `${words.slice(0, LONGEST)}…` : words));
    }
    hit.append(cells, element("p", { class: "score" }, t("search.score", { score: number(row.score, 3) })));
    return hit;
  }
}
