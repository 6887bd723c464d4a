/** Least bytes for pieces that are gathered. */
const STORE_MIN = 512;

/**
 * Bytes that wait for the rest of what they belong to, or for their turn. Pieces are gathered in a store that doubles: each
 * byte is copied a bounded number of times, however small the pieces are. A single piece is kept as it came.
 */
export class Backlog {
  /** What waits; undefined for nothing. */
  bytes: Buffer | undefined;
  #store: Buffer | undefined;
  /** Where {@link bytes} ends in the store. */
  #end = 0;

  /** @param piece can be kept */
  add(piece: Buffer): void {
    const { bytes } = this;
    if (!bytes) {
      this.bytes = piece;
      return;
    }
    const length = bytes.length + piece.length;
    if (!this.#store || this.#store.length - this.#end < piece.length) {
      // A piece as large as all before it has doubled them already.
      const size = piece.length >= bytes.length ? length : 2 * length;
      this.#store = Buffer.allocUnsafeSlow(Math.max(STORE_MIN, size));
      bytes.copy(this.#store);
      this.#end = bytes.length;
    }
    piece.copy(this.#store, this.#end);
    this.#end += piece.length;
    this.bytes = this.#store.subarray(this.#end - length, this.#end);
  }

  /** Drops the bytes before `at`. */
  dropTo(at: number): void {
    if (!this.bytes || at >= this.bytes.length) this.clear();
    else if (at > 0) this.bytes = this.bytes.subarray(at);
  }

  clear(): void {
    this.bytes = undefined;
    this.#store = undefined;
  }
}
