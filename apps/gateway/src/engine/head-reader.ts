import { LIMITS } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import {
  type ErrorResponse,
  FIELDS_MAX,
  HeadScan,
  type Peer,
  RequestHead,
  TARGET_LENGTH_MAX,
  TOO_MANY,
} from '../http/index.js';

/** For all heads that are there as a whole: nearly all. */
const shared = new HeadScan();
const CR = 0x0d;
const LF = 0x0a;

/** Reads the heads of a caller's requests from its bytes, one after the other. */
export class HeadReader {
  /** How many bytes the last `read` has taken. */
  taken = 0;
  /** Why the last head is refused: where such a request ends is ambiguous. */
  error: ErrorResponse | undefined;
  /** Of a head that has come in part. */
  #partial: HeadScan | undefined;
  /** An empty line was ignored since the last request. */
  #hadEmptyLine = false;

  constructor(private readonly peer: Peer) {}

  /**
   * @param bytes what was not taken yet; while a head is incomplete, more is only added to it
   * @returns a head, with `error` when it is refused; undefined while it is incomplete
   */
  read(bytes: Buffer): RequestHead | undefined {
    this.taken = 0;
    this.error = undefined;
    // RFC 9112 section 2.2: an empty line before a request is ignored.
    let at = 0;
    if (bytes[0] === CR && !this.#hadEmptyLine) {
      if (bytes.length === 1) return undefined;
      if (bytes[1] === LF) at = 2;
    }
    if (at === bytes.length) {
      // It came with the request before: the connection is as idle as without it.
      this.#hadEmptyLine = true;
      this.taken = at;
      return undefined;
    }
    const partial = this.#partial;
    const end = partial ? partial.resume(bytes) : shared.scan(bytes, at);
    const length = (end > 0 ? end : bytes.length) - at;
    if (length > LIMITS.headerBytesMax)
      return this.refuse(bytes.indexOf('\r\n', at) - at > TARGET_LENGTH_MAX ? TARGET_TOO_LONG : HEAD_TOO_LARGE);
    // A caller of another protocol is refused at once: it waits for no time limit.
    if (end < 0) return this.refuse(end === TOO_MANY ? TOO_MANY_FIELDS : NOT_HTTP);
    if (end === 0) {
      if (!partial) {
        this.#partial = new HeadScan();
        this.#partial.scan(bytes, at);
      }
      return undefined;
    }
    this.#partial = undefined;
    this.#hadEmptyLine = false;
    this.taken = end;
    const head = new RequestHead(this.peer);
    this.error = head.read(bytes.toString('latin1', at, end - 2), partial ?? shared);
    return head;
  }

  /** A head in place of one that cannot be read. */
  refuse(error: ErrorResponse): RequestHead {
    this.error = error;
    const head = new RequestHead(this.peer);
    head.requestId = newId();
    return head;
  }
}

const TARGET_TOO_LONG: ErrorResponse = {
  code: 'uri_too_long',
  detail: `The request target can have at most ${TARGET_LENGTH_MAX} characters.`,
};
const HEAD_TOO_LARGE: ErrorResponse = {
  code: 'header_too_large',
  detail: `Request line and headers can have at most ${LIMITS.headerBytesMax} bytes together.`,
};
const TOO_MANY_FIELDS: ErrorResponse = {
  code: 'header_too_large',
  detail: `A request can have at most ${FIELDS_MAX} headers.`,
};
const NOT_HTTP: ErrorResponse = {
  code: 'invalid_request',
  detail:
    'The request is not well-formed HTTP/1.1: it contains a character that is not allowed in a head, or a bare CR or LF.',
};
