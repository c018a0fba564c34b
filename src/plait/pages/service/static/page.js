// Wires the page together: tabs, theme, the form and its answer.

import * as answers from "./answers.js";
import * as calls from "./calls.js";
import { Refused, post } from "./client.js";
import { Effects } from "./effects.js";
import * as examples from "./examples.js";
import { Form } from "./fields.js";
import * as languages from "./languages.js";
import { Latest } from "./latest.js";
import { Search } from "./search.js";
import { element, facts, number, say, t } from "./text.js";

const row = document.getElementById("row") && new Form(document.getElementById("row"));
const query = document.getElementById("query") && new Form(document.getElementById("query"));
const answer = document.getElementById("answer");

addTheme();
if (row) addPrediction();
if (query) new Search(query, showErrors);
addTabs();
addFiles();
if (row) languages.keep(row);

// ---------------------------------------------------------------- colours

function addTheme() {
  const themes = ["auto", "light", "dark"];
  const button = document.getElementById("theme");
  const current = () => document.documentElement.dataset.theme ?? "auto";
  const show = () => { button.textContent = t(`theme.${current()}`); };
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(current()) + 1) % themes.length];
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    try {
      if (next === "auto") localStorage.removeItem("plait-theme");
      else localStorage.setItem("plait-theme", next);
    } catch {
      // without storage the choice holds until the page is left
    }
    show();
  });
  show();
}

// ---------------------------------------------------------------- tabs

function addTabs() {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const select = (tab, isAsked) => {
    for (const other of tabs) {
      const isSelected = other === tab;
      other.setAttribute("aria-selected", String(isSelected));
      other.tabIndex = isSelected ? 0 : -1;
      document.getElementById(other.dataset.tab).hidden = !isSelected;
    }
    if (tab.dataset.tab === "api") calls.show(document.getElementById("calls"), row ?? query);
    if (isAsked) history.replaceState(null, "", `#${tab.dataset.tab}`);
  };
  for (const [place, tab] of tabs.entries()) {
    tab.addEventListener("click", () => select(tab, true));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: -1 }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      const next = tabs.at(step % tabs.length);
      select(next, true);
      next.focus();
    });
  }
  // The calls are those of the row, which may be filled in while they are shown.
  document.addEventListener("rowchange", () => {
    const shown = tabs.find((tab) => tab.getAttribute("aria-selected") === "true");
    if (shown.dataset.tab === "api") select(shown, false);
  });
  const asked = tabs.find((tab) => `#${tab.dataset.tab}` === location.hash);
  select(asked ?? tabs[0], false);
}

// ---------------------------------------------------------------- files

// A file that is pasted, or dropped beside the fields, goes to the first column that takes it.
function addFiles() {
  const place = (files) => {
    const form = [row, query].find((candidate) => candidate && candidate.root.offsetParent);
    if (!form || !files.length) return;
    const fitting = form.fields.filter((field) => field.family && !field.root.hidden && field.takes(files[0]));
    const active = fitting.find((field) => field.root.contains(document.activeElement));
    const field = active ?? fitting.find((candidate) => !candidate.isFilled) ?? fitting[0];
    if (field) field.add(files);
    else say(t("media.no_column", { type: files[0].type || t("media.unknown_type") }));
  };
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (!files.length) return;
    event.preventDefault();
    place(files);
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (event.defaultPrevented) return;
    event.preventDefault();
    place([...event.dataTransfer.files]);
  });
}

// ---------------------------------------------------------------- prediction

function addPrediction() {
  const effects = new Effects(document.getElementById("effects"), row, (error) => showErrors(error, row, answer));
  const requests = new Latest();
  let example = null; // that the row is, unless it was changed

  const predict = async () => {
    const isLatest = requests.begin();
    const { changes } = row;
    const source = example;
    row.clearErrors();
    answer.setAttribute("aria-busy", "true");
    say(t("predicting"));
    try {
      checkSize(row);
      const cells = await row.row();
      const { answers: [predicted], warnings } = await post("predict", JSON.stringify(cells));
      if (!isLatest()) return;
      answer.replaceChildren(...notices(cells, warnings), ...answers.shown(predicted, source));
      settle();
      const words = [answers.spoken(predicted), ...warnings];
      if (row.changes === changes) {
        effects.offer(predicted);
        reveal();
      } else {
        outdate(predict); // the row was changed while the request was under way
        words.push(t("answer.stale"));
      }
      say(words.join(". "));
    } catch (error) {
      if (!isLatest()) return;
      effects.hide();
      settle();
      showErrors(error, row, answer, row.changes === changes);
    }
  };

  row.root.addEventListener("submit", (event) => {
    event.preventDefault();
    predict();
  });
  row.root.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) predict();
  });
  row.root.addEventListener("rowchange", () => {
    example = null;
    outdate(predict);
    effects.hide();
  });
  document.getElementById("clear").addEventListener("click", () => {
    requests.drop();
    row.clear();
    answer.replaceChildren(element("p", { class: "muted" }, t("answer.empty")));
    settle();
    row.fields[0]?.input.focus();
  });
  examples.offer(row, (filled) => {
    example = filled;
    predict();
  });
  if (document.getElementById("filter")) addFilter();
}

// The answer's place shows what was asked for last.
function settle() {
  answer.removeAttribute("aria-busy");
  answer.classList.remove("is-stale");
}

// Say that the answer is not that of the inputs any more.
function outdate(predict) {
  if (!answer.querySelector(".target") || answer.classList.contains("is-stale")) return;
  answer.classList.add("is-stale");
  const again = element("button", { type: "button", onclick: predict }, t("answer.again"));
  answer.prepend(element("p", { class: "notice" }, t("answer.stale"), " ", again));
}

function notices(cells, warnings) {
  const parts = [];
  if (!Object.keys(cells).length) parts.push(element("p", { class: "notice" }, t("answer.without_inputs")));
  if (warnings.length) {
    const list = element("ul", {}, ...warnings.map((warning) => element("li", {}, warning)));
    parts.push(element("div", { class: "notice" }, element("h3", {}, t("warnings")), list));
  }
  return parts;
}

// On a phone the answer lies below the form: bring it into view.
function reveal() {
  const title = document.getElementById("answer-title");
  const { top } = title.getBoundingClientRect();
  if (top < 0 || top > innerHeight - 120) {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    title.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
  }
}

function checkSize(form) {
  if (form.bytes <= facts.limits.body) return;
  const megabytes = (bytes) => number(bytes / 1e6, 3);
  const largest = form.used.reduce((most, field) => (field.bytes > most.bytes ? field : most));
  const problem = t("media.too_large", { size: megabytes(form.bytes), limit: megabytes(facts.limits.body) });
  throw new Refused(problem, 413, [{ column: largest.column, problem }]);
}

// Show why a request failed, at the columns that it names; the first of them gets the focus. If the row is not
// that of the request any more, no column is marked: what is wrong may be gone, and somebody may be typing.
function showErrors(error, form, host, isSameRow = true) {
  if (!(error instanceof Refused)) throw error;
  const marked = [];
  for (const { column, problem } of isSameRow ? error.cells : []) {
    const field = form.byColumn.get(column);
    if (!field) continue;
    field.showError(problem);
    marked.push(field);
  }
  let words = error.message;
  if (marked.length === 1) words = t("error.one_cell", { column: marked[0].column });
  if (marked.length > 1) words = t("error.cells", { count: marked.length });
  const notice = element("div", { class: "notice is-error" }, element("h3", {}, t("error")), element("p", {}, words));
  if (error.status === 401) notice.append(element("a", { href: `login?lang=${facts.language}` }, t("login.link")));
  host.replaceChildren(notice);
  say([words, ...error.cells.map(({ problem }) => problem)].join(" "));
  marked[0]?.input.focus();
}

// ---------------------------------------------------------------- many columns

function addFilter() {
  const filter = document.getElementById("filter");
  const only = document.getElementById("only-filled");
  const plain = row.fields.filter((field) => field.root.classList.contains("plain"));
  const apply = () => {
    const words = filter.value.trim().toLowerCase();
    let count = 0;
    for (const field of plain) {
      const fits = field.column.toLowerCase().includes(words) && (!only.checked || field.isFilled);
      field.root.hidden = !fits;
      count += fits;
    }
    document.getElementById("filtered").textContent = t("inputs.filtered", { shown: count, all: plain.length });
  };
  filter.addEventListener("input", apply);
  only.addEventListener("change", apply);
  apply();
}
