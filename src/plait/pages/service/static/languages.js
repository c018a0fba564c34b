// Another language is another page: take along what is filled in, and the tab.

import { t } from "./text.js";

const NAME = "plait-row"; // of the entry in the tab's storage, and of the database
const LONGEST = 60_000; // milliseconds that files wait for the other page

// Fill in what the page in another language had, and have the links to others take along what this one has.
export async function keep(form) {
  for (const link of document.querySelectorAll(".settings a")) {
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return; // another tab begins anew
      event.preventDefault();
      link.hash = location.hash;
      leave(form, link.href);
    });
  }
  await restore(form).catch(() => {}); // without storage there is nothing that was taken along
}

async function leave(form, address) {
  const filled = form.fields.filter((field) => field.isFilled);
  const texts = filled.filter(({ files }) => !files).map(({ column, text }) => [column, text]);
  const files = filled.filter((field) => field.files).map((field) => [field.column, field.files]);
  const leftOut = filled.filter((field) => field.isLeftOut).map(({ column }) => column);
  const key = Date.now() + Math.random();
  try {
    sessionStorage.setItem(NAME, JSON.stringify({ texts, leftOut, key }));
    if (files.length) await put(files, key);
  } catch {
    if (filled.length && !confirm(t("language.lost"))) return;
  }
  location.assign(address);
}

async function restore(form) {
  const { texts, leftOut, key } = JSON.parse(sessionStorage.getItem(NAME)) ?? {};
  if (!key) return;
  sessionStorage.removeItem(NAME);
  for (const [column, text] of texts) form.byColumn.get(column)?.fill(text);
  const { changes } = form;
  const files = await take(key).catch(() => []);
  if (form.changes !== changes) return; // somebody goes on with the row already
  for (const [column, chosen] of files) form.byColumn.get(column)?.fill(chosen);
  for (const column of leftOut) form.byColumn.get(column)?.setLeftOut(true);
  form.changed();
}

// The tab's storage holds texts alone, so files wait in a database. It is emptied as soon as they are fetched.
async function put(files, key) {
  await inStore((store) => {
    store.delete(IDBKeyRange.upperBound(key - LONGEST)); // files whose page never came
    return store.put(files, key);
  });
}

// Return the files, [[column, files]], and forget them.
async function take(key) {
  return inStore((store) => {
    const files = store.get(key);
    store.delete(key);
    return files;
  }).then((files) => files ?? []);
}

// Return the outcome of the request that `use` makes of the store of files, once all is written.
async function inStore(use) {
  const database = await new Promise((resolve, reject) => {
    const opening = indexedDB.open(NAME, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("files");
    opening.onsuccess = () => resolve(opening.result);
    opening.onerror = () => reject(opening.error);
  });
  try {
    return await new Promise((resolve, reject) => {
      const transaction = database.transaction("files", "readwrite");
      const request = use(transaction.objectStore("files"));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error);
    });
  } finally {
    database.close();
  }
}
