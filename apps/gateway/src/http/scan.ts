/** Most fields of a message. */
export const FIELDS_MAX = 200;

/** The head contains a byte that it cannot: a control, or CR or LF alone (RFC 9110 section 5.5, RFC 9112 section 2.2). */
export const MALFORMED = -1;
/** It has more than {@link FIELDS_MAX} fields. */
export const TOO_MANY = -2;

const COLON = 1;
const CR = 2;
const BAD = 3;
const TAB = 4;

const CR_BYTE = 0x0d;
const LF_BYTE = 0x0a;
const TAB_BYTE = 0x09;

/** What a byte is in a head; 0: any text. */
const KINDS = new Uint8Array(256).map((_, byte) => {
  if (byte === 0x3a) return COLON;
  if (byte === CR_BYTE) return CR;
  if (byte === TAB_BYTE) return TAB;
  return byte < 0x20 || byte === 0x7f ? BAD : 0;
});

/**
 * Finds the lines of a head in one pass over its bytes. One object serves all heads that are there as a whole; one that
 * comes in pieces needs its own, which goes on where it ended.
 */
export class HeadScan {
  /** Lines of the last head, the first line included. */
  lines = 0;
  /** It contains a tab. */
  hasTab = false;
  /** By line: where its CRLF begins, and its first colon or -1; from the beginning of the head. */
  readonly ends = new Int32Array(FIELDS_MAX + 2);
  readonly colons = new Int32Array(FIELDS_MAX + 2);
  // Where an incomplete scan goes on.
  #at = 0;
  #next = 0;
  #lineStart = 0;
  #colon = -1;

  /**
   * @param at where the head begins
   * @returns where the bytes behind its empty line begin; 0 while it is incomplete; {@link MALFORMED} or {@link TOO_MANY}
   */
  scan(buffer: Buffer, at: number): number {
    this.lines = 0;
    this.hasTab = false;
    return this.#scan(buffer, at, at, at, -1);
  }

  /**
   * Goes on with a head that was incomplete.
   * @param buffer begins with the bytes of the scan before, at the same place
   */
  resume(buffer: Buffer): number {
    return this.#scan(buffer, this.#at, this.#next, this.#lineStart, this.#colon);
  }

  #scan(buffer: Buffer, at: number, from: number, lineStart: number, lineColon: number): number {
    const { length } = buffer;
    let { lines } = this;
    let start = lineStart;
    let colon = lineColon;
    let i = from;
    for (;;) {
      while (i < length && KINDS[buffer[i]!] === 0) i++;
      if (i >= length) break;
      const kind = KINDS[buffer[i]!];
      if (kind === COLON) {
        if (colon < 0) colon = i - at;
        i++;
        continue;
      }
      if (kind === TAB) {
        this.hasTab = true;
        i++;
        continue;
      }
      if (kind === BAD) return MALFORMED;
      if (i + 1 >= length) break;
      if (buffer[i + 1] !== LF_BYTE) return MALFORMED;
      if (i === start) {
        this.lines = lines;
        return lines === 0 ? MALFORMED : i + 2;
      }
      if (lines > FIELDS_MAX) return TOO_MANY;
      this.ends[lines] = i - at;
      this.colons[lines] = colon;
      lines++;
      colon = -1;
      i += 2;
      start = i;
    }
    this.lines = lines;
    this.#at = at;
    this.#next = i;
    this.#lineStart = start;
    this.#colon = colon;
    return 0;
  }
}
