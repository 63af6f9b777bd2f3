/** Cuts a stream of bytes into lines, without I/O; every byte is searched for a line end once. */

const LINE_END = 0x0a;

export class LineSplitter {
  readonly #maxBytes: number;
  readonly #decoder = new TextDecoder("utf-8", { fatal: true });
  #begun: Uint8Array[] = [];
  #size = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /**
   * The lines that `data` completes, without blank ones. Throws at a line that is too long or not
   * UTF-8; what was before it in `data` is then given to `take` already.
   */
  feed(data: Uint8Array, take: (line: string) => void): void {
    let start = 0;
    for (let end = data.indexOf(LINE_END); end >= 0; end = data.indexOf(LINE_END, start)) {
      this.#append(data.subarray(start, end));
      start = end + 1;
      const line = this.#decoder.decode(this.#whole());
      if (line.trim() !== "") take(line);
    }
    this.#append(data.subarray(start));
  }

  #append(part: Uint8Array): void {
    if (part.length === 0) return;
    this.#begun.push(part);
    this.#size += part.length;
    if (this.#size > this.#maxBytes) {
      throw new RangeError(`a reply of more than ${this.#maxBytes / 2 ** 20} MiB`);
    }
  }

  #whole(): Uint8Array {
    const parts = this.#begun;
    this.#begun = [];
    this.#size = 0;
    return parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts);
  }
}
