// Keeps what arrives late from replacing what was asked for later.

export class Latest {
  #begun = 0;

  // Begin something. Return a function that tells whether nothing was begun or dropped since.
  begin() {
    const number = ++this.#begun;
    return () => number === this.#begun;
  }

  // Want none of what was begun.
  drop() {
    this.#begun++;
  }
}
