import { isClean, isToken } from './fields.js';

/** Finds the end of a message's body (RFC 9112 section 6) in the bytes as they arrive. */
export interface BodyReader {
  /** True once the body has ended. */
  readonly complete: boolean;
  /** Bytes to write behind those that were read, once the body is complete. */
  readonly tail: string;
  /**
   * Reads from `at` to the end of the body or of the buffer.
   * @param payload receives start and end of each piece of content, without framing
   * @returns where the bytes that go on with the message unchanged end; negative when the framing is malformed
   */
  read(buffer: Buffer, at: number, payload?: number[]): number;
  /** Where the last `read` ended: what follows belongs to the next message. */
  readonly end: number;
}

/** A body of as many bytes as Content-Length says. */
export class LengthBody implements BodyReader {
  readonly tail = '';
  end = 0;

  /** @param left bytes; above 0 */
  constructor(private left: number) {}

  get complete(): boolean {
    return this.left === 0;
  }

  /** Bytes still to come. */
  get remaining(): number {
    return this.left;
  }

  read(buffer: Buffer, at: number, payload?: number[]): number {
    const taken = Math.min(this.left, buffer.length - at);
    this.left -= taken;
    this.end = at + taken;
    if (taken > 0) payload?.push(at, this.end);
    return this.end;
  }
}

/** A response's body that ends with the connection. */
export class UntilCloseBody implements BodyReader {
  readonly tail = '';
  end = 0;
  complete = false;

  read(buffer: Buffer, at: number, payload?: number[]): number {
    this.end = buffer.length;
    if (at < this.end) payload?.push(at, this.end);
    return this.end;
  }
}

enum State {
  Size,
  SizeLf,
  Data,
  DataCr,
  DataLf,
  Trailer,
  Complete,
}

const CR = 0x0d;
const LF = 0x0a;
/** Digits of a chunk's size: 2^48 bytes. */
const SIZE_DIGITS_MAX = 12;
export const TRAILER_BYTES_MAX = 16_384;

/** Never in a trailer (RFC 9110 section 6.5.1); some servers read them there. */
const FRAMING = /^(?:content-length|transfer-encoding|host)$/i;

/**
 * A chunked body (RFC 9112 section 7.1), without extensions. The chunks go on as they came; trailer fields, which some
 * servers read like header fields, are checked and dropped (RFC 9110 section 6.5.1).
 */
export class ChunkedBody implements BodyReader {
  readonly tail = '\r\n';
  end = 0;
  #state = State.Size;
  #size = 0;
  #digits = 0;
  #trailer = '';
  /** The last of it, where its end can begin. */
  #trailerLast = '';

  get complete(): boolean {
    return this.#state === State.Complete;
  }

  read(buffer: Buffer, from: number, payload?: number[]): number {
    const { length } = buffer;
    let at = from;
    while (at < length) {
      switch (this.#state) {
        case State.Data: {
          const taken = Math.min(this.#size, length - at);
          payload?.push(at, at + taken);
          at += taken;
          this.#size -= taken;
          if (this.#size === 0) this.#state = State.DataCr;
          break;
        }
        case State.Size: {
          const byte = buffer[at++]!;
          const digit = hexDigit(byte);
          if (digit >= 0 && ++this.#digits <= SIZE_DIGITS_MAX) this.#size = this.#size * 16 + digit;
          else if (byte === CR && this.#digits > 0 && digit < 0) this.#state = State.SizeLf;
          else return -1;
          break;
        }
        case State.SizeLf:
          if (buffer[at++] !== LF) return -1;
          this.#digits = 0;
          this.#state = this.#size === 0 ? State.Trailer : State.Data;
          break;
        case State.DataCr:
          if (buffer[at++] !== CR) return -1;
          this.#state = State.DataLf;
          break;
        case State.DataLf:
          if (buffer[at++] !== LF) return -1;
          this.#state = State.Size;
          break;
        case State.Trailer: {
          // What came before goes on unchanged; the trailer does not.
          const passedEnd = at;
          return this.#readTrailer(buffer, at) ? passedEnd : -1;
        }
        case State.Complete:
          this.end = at;
          return at;
      }
    }
    this.end = at;
    return at;
  }

  /** Reads trailer fields to the empty line; false when they are malformed or too long. */
  #readTrailer(buffer: Buffer, at: number): boolean {
    const before = this.#trailer.length;
    const overlap = this.#trailerLast;
    const piece = buffer.toString('latin1', at, Math.min(buffer.length, at + TRAILER_BYTES_MAX + 4));
    const recent = overlap + piece;
    this.#trailer += piece;
    // Only what is new is searched: it can come in many pieces.
    const found = before === overlap.length && recent.startsWith('\r\n') ? 0 : recent.indexOf('\r\n\r\n');
    if (found < 0) {
      this.end = buffer.length;
      this.#trailerLast = recent.slice(-3);
      // A CR at the end can become a CRLF; everything else is known now.
      const known = piece.endsWith('\r') ? piece.slice(0, -1) : piece;
      return this.#trailer.length <= TRAILER_BYTES_MAX && isClean(overlap.endsWith('\r') ? `\r${known}` : known);
    }
    const end = found + before - overlap.length;
    const fields = this.#trailer.slice(0, end === 0 ? 0 : end + 2);
    if (fields.length > TRAILER_BYTES_MAX || !isClean(fields)) return false;
    const lines = fields.split('\r\n').slice(0, -1);
    const names = lines.map((line) => line.slice(0, Math.max(0, line.indexOf(':'))));
    if (!names.every((name) => isToken(name) && !FRAMING.test(name))) return false;
    this.#state = State.Complete;
    this.#trailer = '';
    this.end = at + (end === 0 ? 2 : end + 4) - before;
    return true;
  }
}

function hexDigit(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const lower = byte | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
}
