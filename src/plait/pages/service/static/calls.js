// The calls that send the row of the form from a program.

import { element, facts, say, t } from "./text.js";

export function show(host, form) {
  const url = new URL(form.root.id === "query" ? "search" : "predict", location.href).href;
  const calls = [
    [t("api.curl"), curl(url, form, "token" in host.dataset)],
    [t("api.python"), overHTTP(url, form, "token" in host.dataset)],
  ];
  if (form.root.id !== "query") calls.push([t("api.local"), local(form)]);
  host.replaceChildren(...calls.map(([title, code]) => block(title, code)));
}

function block(title, code) {
  const copy = element("button", { type: "button", class: "quiet", "aria-label": t("api.copy_of", { what: title }) }, t("api.copy"));
  const shown = element("code", {}, code);
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code);
    } catch {
      getSelection().selectAllChildren(shown); // for the keys that copy
      return;
    }
    copy.textContent = t("api.copied");
    say(t("api.copied"));
    setTimeout(() => { copy.textContent = t("api.copy"); }, 2000);
  });
  const head = element("div", { class: "call-head" }, element("h3", {}, title), navigator.clipboard ? copy : "");
  return element("section", { class: "call" }, head, element("pre", { tabindex: "0", "aria-label": title }, shown));
}

// A shell takes anything between single quotes but such a quote.
function shell(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

export function curl(url, form, hasToken) {
  const row = form.cells;
  const parts = [`curl ${shell(url)}`];
  if (hasToken) parts.push('-H "Authorization: Bearer $PLAIT_TOKEN"');
  if (row.every(({ files }) => !files)) {
    const body = Object.fromEntries(row.map(({ column, cell }) => [column, cell]));
    parts.push("-H 'Content-Type: application/json'", `-d ${shell(JSON.stringify(body))}`);
    return parts.join(" \\\n  ");
  }
  // Forms have no agreed way to write such names.
  if (row.some(({ column }) => /[=;"\\\r\n]/.test(column))) return heredoc(parts, row);
  for (const { column, files, cell } of row) {
    const text = typeof cell === "string" ? cell : JSON.stringify(cell);
    if (!files) parts.push(`--form-string ${shell(`${column}=${text}`)}`);
    for (const file of files ?? []) parts.push(`-F ${shell(`${column}=@"${file.name.replace(/["\\]/g, "\\$&")}"`)}`);
  }
  return parts.join(" \\\n  ");
}

// JSON on the standard input, into which the shell puts the files.
function heredoc(parts, row) {
  const escaped = (cell) => JSON.stringify(cell).replace(/[\\$`]/g, "\\$&");
  const lines = row.map(({ column, files, cell }) => {
    if (!files) return `${escaped(column)}: ${escaped(cell)}`;
    const uris = files.map((file) => `"data:;base64,$(base64 < ${shell(file.name)} | tr -d '\\n')"`);
    return `${escaped(column)}: ${uris.length === 1 ? uris[0] : `[${uris.join(", ")}]`}`;
  });
  parts.push("-H 'Content-Type: application/json'", "--data-binary @- <<END");
  return `${parts.join(" \\\n  ")}\n{${lines.join(",\n ")}}\nEND`;
}

// Python and JSON write texts and numbers alike.
const literal = (cell) => JSON.stringify(cell);

export function overHTTP(url, form, hasToken) {
  const row = form.cells;
  const hasFiles = row.some(({ files }) => files);
  const lines = [];
  if (hasFiles) lines.push("import base64");
  if (hasToken) lines.push("import os");
  lines.push(...(lines.length ? [""] : []), "import requests", "");
  if (hasFiles) lines.push("", "def file(name):", '    return base64.b64encode(open(name, "rb").read()).decode()', "", "");
  lines.push(...assignment(row, (name) => `file(${literal(name)})`));
  if (hasToken) lines.push('headers = {"Authorization": "Bearer " + os.environ["PLAIT_TOKEN"]}');
  lines.push(`answer = requests.post(${literal(url)}, json=row${hasToken ? ", headers=headers" : ""})`);
  lines.push("print(answer.json())");
  return lines.join("\n");
}

export function local(form) {
  const lines = ["import plait", "", `model = plait.load(${literal(facts.name)})`];
  lines.push(...assignment(form.cells, literal), "print(model.predict([row]))");
  return lines.join("\n");
}

// The lines of a dict; `written` gives the expression of a file by its name.
function assignment(row, written) {
  const lines = row.map(({ column, files, cell }) => {
    const names = (files ?? []).map((file) => written(file.name));
    const expression = files ? (names.length === 1 ? names[0] : `[${names.join(", ")}]`) : literal(cell);
    return `    ${literal(column)}: ${expression},`;
  });
  return lines.length ? ["row = {", ...lines, "}"] : ["row = {}"];
}
