// Requests to the service. What it refuses becomes a `Refused` with its message and the cells that are wrong.

import { facts, t } from "./text.js";

const MOST_BYTES = 8 << 20; // of the rows that go into one request, if they are several
const AT_ONCE = 3; // requests

export class Refused extends Error {
  constructor(message, status, cells = []) {
    super(message);
    this.status = status;
    this.cells = cells;
  }
}

export async function post(path, body) {
  let response;
  try {
    response = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body });
  } catch {
    throw new Refused(t("error.network"), 0);
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  if (response.status === 401) throw new Refused(t("login.again"), 401);
  if (response.status === 429) {
    throw new Refused(t("error.busy", { seconds: response.headers.get("Retry-After") ?? 1 }), 429);
  }
  throw new Refused(answer.error ?? `HTTP ${response.status}`, response.status, answer.cells ?? []);
}

// Predict many rows: small ones together, large ones apart. `arrived` gets the place of a row, and its answer.
export async function predictEach(rows, arrived) {
  const batches = [];
  let size = Infinity;
  for (const [place, row] of rows.entries()) {
    const text = JSON.stringify(row);
    if (size + text.length > MOST_BYTES || batches.at(-1).length >= facts.limits.rows) {
      batches.push([]);
      size = 0;
    }
    batches.at(-1).push({ place, text });
    size += text.length;
  }

  async function work() {
    while (batches.length) {
      const batch = batches.shift();
      const { answers } = await post("predict", `[${batch.map((row) => row.text).join(",")}]`);
      answers.forEach((answer, number) => arrived(batch[number].place, answer));
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work));
}
