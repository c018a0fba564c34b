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
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(code);
    copy.textContent = t("api.copied");
    say(t("api.copied"));
    setTimeout(() => { copy.textContent = t("api.copy"); }, 2000);
  });
  const head = element("div", { class: "call-head" }, element("h3", {}, title), navigator.clipboard ? copy : "");
  return element("section", { class: "call" }, head, element("pre", { tabindex: "0", "aria-label": title }, element("code", {}, code)));
}

// Cells in the order of the page: {column, files} or {column, value}.
function cells(form) {
  return form.used.map((field) => ({ column: field.column, kind: field.kind, files: field.files, value: field.text }));
}

function plain({ kind, value }) {
  return kind === "number" && value.trim() !== "" && Number.isFinite(Number(value)) ? Number(value) : value;
}

// A shell takes anything between single quotes but such a quote.
function shell(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

export function curl(url, form, hasToken) {
  const row = cells(form);
  const parts = [`curl ${shell(url)}`];
  if (hasToken) parts.push('-H "Authorization: Bearer $PLAIT_TOKEN"');
  if (row.every(({ files }) => !files)) {
    const body = Object.fromEntries(row.map((cell) => [cell.column, plain(cell)]));
    parts.push("-H 'Content-Type: application/json'", `-d ${shell(JSON.stringify(body))}`);
    return parts.join(" \\\n  ");
  }
  // curl cuts a field at its first equals sign; a form cannot have such a column.
  if (row.some(({ column }) => /[=;"\n]/.test(column))) return heredoc(parts, row);
  for (const { column, files, value } of row) {
    if (!files) parts.push(`--form-string ${shell(`${column}=${value}`)}`);
    for (const file of files ?? []) parts.push(`-F ${shell(`${column}=@"${file.name.replace(/["\\]/g, "\\$&")}"`)}`);
  }
  return parts.join(" \\\n  ");
}

// JSON on the standard input, into which the shell puts the files.
function heredoc(parts, row) {
  const escaped = (value) => JSON.stringify(value).replace(/[\\$`]/g, "\\$&");
  const lines = row.map((cell) => {
    if (!cell.files) return `${escaped(cell.column)}: ${escaped(plain(cell))}`;
    const uris = cell.files.map((file) => `"data:;base64,$(base64 < ${shell(file.name)} | tr -d '\\n')"`);
    return `${escaped(cell.column)}: ${uris.length === 1 ? uris[0] : `[${uris.join(", ")}]`}`;
  });
  parts.push("-H 'Content-Type: application/json'", "--data-binary @- <<END");
  return `${parts.join(" \\\n  ")}\n{${lines.join(",\n ")}}\nEND`;
}

// Python and JSON write texts and numbers alike.
const literal = (value) => JSON.stringify(value);

export function overHTTP(url, form, hasToken) {
  const row = cells(form);
  const lines = ["import requests", ""];
  if (hasToken) lines.splice(0, 1, "import os", "", "import requests");
  const options = [];
  if (row.some(({ files }) => files)) {
    const values = row.filter(({ files }) => !files).map((cell) => `    ${literal(cell.column)}: ${literal(plain(cell))},`);
    lines.push("row = {", ...values, "}", "files = [");
    for (const { column, files } of row) {
      for (const file of files ?? []) lines.push(`    (${literal(column)}, open(${literal(file.name)}, "rb")),`);
    }
    lines.push("]");
    options.push("data=row", "files=files");
  } else {
    lines.push("row = {", ...row.map((cell) => `    ${literal(cell.column)}: ${literal(plain(cell))},`), "}");
    options.push("json=row");
  }
  if (hasToken) lines.push('headers = {"Authorization": f"Bearer {os.environ[\'PLAIT_TOKEN\']}"}');
  if (hasToken) options.push("headers=headers");
  lines.push(`answer = requests.post(${literal(url)}, ${options.join(", ")})`);
  lines.push("print(answer.json())");
  return lines.join("\n");
}

export function local(form) {
  const lines = cells(form).map((cell) => {
    if (!cell.files) return `    ${literal(cell.column)}: ${literal(plain(cell))},`;
    const names = cell.files.map((file) => file.name);
    return `    ${literal(cell.column)}: ${literal(names.length === 1 ? names[0] : names)},`;
  });
  return ["import plait", "", `model = plait.load(${literal(facts.name)})`, "row = {", ...lines, "}", "print(model.predict([row]))"].join("\n");
}
