import type { IncomingMessage } from 'node:http';
import { isRequestId } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import {
  type FieldSink,
  fieldValue,
  hasTabbedFraming,
  lengthOf,
  lists,
  PASS,
  readFields,
  withoutListed,
} from './fields.js';
import { callerAddress, type Peer, peerOf } from './peer.js';
import { Action, OWN_NAME, REQUEST_FIELDS } from './request-fields.js';
import type { ErrorResponse } from './responses.js';
import { FIELDS_MAX, type HeadScan } from './scan.js';

const PASSED_BY = /^[0-9a-f-]{36}(?:, [0-9a-f-]{36}){0,19}$/;
const HOST = /^(?!:)[A-Za-z0-9._~!$&'()*+,;=:[\]%-]{0,255}$/;
/** Not in lower case: some servers read "post" as POST, after a rule for other methods was applied. */
export const isMethod = (text: string): boolean => /^[A-Z][A-Z0-9_-]{0,31}$/.test(text);
const CHUNKED = -2;
const NO_LENGTH = -1;
/**
 * Fields that pass whatever `Connection` says: the gateway has read them, and the upstream sees what it went by. The first
 * three are no fields.
 */
const KEPT = new Set(['close', 'keep-alive', 'upgrade', 'content-type', 'content-encoding', 'origin', 'user-agent']);

const bad = (detail: string): ErrorResponse => ({ code: 'invalid_request', detail });

/** What the gateway needs of a request's head, read in one pass. */
export class RequestHead implements FieldSink {
  /** All of it, to the CRLF of its last field. */
  text = '';
  method = '';
  /** In origin form or `*`; of an absolute target its authority is {@link host}. */
  target = '';
  /** 0 for HTTP/1.0. */
  minorVersion = 1;
  /** Lines forwarded unchanged, each with its CRLF: without credentials, cookies and framing. */
  passed = '';
  requestId = '';
  /** The caller's address. */
  ip = '';
  host = '';
  authorization: string | undefined;
  /** Unchanged; see `withoutSessionCookie`. */
  cookie: string | undefined;
  userAgent = '';
  origin: string | undefined;
  contentType: string | undefined;
  contentEncoding: string | undefined;
  /** Bytes; -1 without a body of known length, see {@link chunked}. */
  contentLength = NO_LENGTH;
  chunked = false;
  expectsContinue = false;
  /** The caller wants its connection closed after the response. */
  closes = false;
  /** In lower case; only with `Connection: upgrade`. */
  upgrade = '';
  /** `X-Forwarded-For` for the upstream. */
  forwardedFor = '';
  forwardedProto: 'http' | 'https';
  forwardedHost = '';
  /** Of the request that a reverse proxy asks about, from any peer: see `Peers`. */
  forwardedMethod: string | undefined;
  forwardedUri: string | undefined;
  /** RFC 9110 section 7.6.2; undefined without the field, negative when it is no number. */
  maxForwards: number | undefined;
  /** The gateway processes that have forwarded the request, as received; at most 20. */
  passedBy = '';
  /** This process has forwarded the request before. */
  isLoop = false;
  #hasHost = false;
  #length: string | undefined;
  #transferEncoding: string | undefined;
  #connection: string | undefined;
  #expect: string | undefined;
  #upgrade: string | undefined;
  #duplicate = '';

  constructor(private readonly peer: Peer) {
    this.forwardedProto = peer.encrypted ? 'https' : 'http';
  }

  /** A body follows the head. */
  get hasBody(): boolean {
    return this.chunked || this.contentLength > 0;
  }

  /** A field that passes, by its name in lower case; several are joined (RFC 9110 section 5.3). */
  header(name: string): string | undefined {
    const found = this.passed.split('\r\n').filter((line) => line.slice(0, line.indexOf(':')).toLowerCase() === name);
    return found.length === 0
      ? undefined
      : found.map((line) => fieldValue(line, name.length + 1, line.length)).join(', ');
  }

  /**
   * Reads the head of a request (RFC 9112 section 3), strictly.
   * @param text to the CRLF of its last field
   * @param scan where its lines are
   * @returns undefined, or the error response
   */
  read(text: string, scan: HeadScan): ErrorResponse | undefined {
    const why = this.#parse(text, scan);
    if (this.requestId === '') this.requestId = newId();
    return why ?? this.#conclude();
  }

  #parse(text: string, scan: HeadScan): ErrorResponse | undefined {
    this.text = text;
    if (scan.hasTab && hasTabbedFraming(text))
      return bad('A header that frames the request has a tab around its value.');
    const end = scan.ends[0]!;
    const space = text.indexOf(' ');
    const last = text.lastIndexOf(' ', end);
    if (space <= 0 || last <= space || last > end) return bad('The first line is not "method target HTTP/1.1".');
    const version = text.slice(last + 1, end);
    if (version === 'HTTP/1.0') this.minorVersion = 0;
    else if (version !== 'HTTP/1.1') return bad('Only HTTP/1.1 and HTTP/1.0 are supported.');
    this.method = text.slice(0, space);
    this.target = text.slice(space + 1, last);
    // PRI begins a connection of HTTP/2 (RFC 9113 section 3.4).
    if (!isMethod(this.method) || this.method === 'PRI') return bad('The method is not valid.');
    if (this.target === '' || this.target.includes(' '))
      return bad('The request target contains a space, or is empty.');
    const passed = readFields(text, scan, REQUEST_FIELDS, this);
    if (typeof passed !== 'string') return bad(passed.malformed);
    this.passed = passed;
    return this.target.startsWith('/') ? undefined : this.#readAbsolute();
  }

  /** RFC 9112 section 3.2.2: of a target in absolute form the authority counts, not the Host field. */
  #readAbsolute(): ErrorResponse | undefined {
    const [, authority, rest] = /^https?:\/\/([^/?#]*)(.*)$/i.exec(this.target) ?? [];
    if (authority === undefined || rest === undefined) return undefined;
    if (authority === '') return bad('The request target has no host.');
    this.host = authority;
    this.target = rest.startsWith('/') ? rest : rest === '' && this.method === 'OPTIONS' ? '*' : `/${rest}`;
    return undefined;
  }

  /** Reads the fields that node:http has parsed. */
  static ofNode(
    req: IncomingMessage,
    isTrusted: (ip: string) => boolean,
  ): { head: RequestHead; error?: ErrorResponse } {
    const head = new RequestHead(peerOf(req.socket, isTrusted));
    const raw = req.rawHeaders;
    head.method = req.method ?? '';
    head.target = req.url ?? '';
    head.minorVersion = req.httpVersionMinor;
    for (let i = 0; i < raw.length; i += 2) {
      const action = REQUEST_FIELDS.actionAt(raw[i]!, 0, raw[i]!.length);
      if (action !== PASS) head.field(action, raw[i + 1]!);
    }
    if (head.requestId === '') head.requestId = newId();
    const tooMany: ErrorResponse = {
      code: 'header_too_large',
      detail: `A request can have at most ${FIELDS_MAX} headers.`,
    };
    const error = raw.length > 2 * FIELDS_MAX ? tooMany : head.#conclude();
    return error ? { head, error } : { head };
  }

  field(action: Action, value: string): boolean {
    switch (action) {
      case Action.Authorization:
        if (this.authorization !== undefined) this.#duplicate = 'Authorization';
        this.authorization = value;
        return false;
      case Action.Cookie:
        this.cookie = this.cookie === undefined ? value : `${this.cookie}; ${value}`;
        return false;
      case Action.Host:
        if (this.#hasHost) this.#duplicate = 'Host';
        this.#hasHost = true;
        this.host = value;
        return false;
      case Action.ContentLength:
        if (this.#length !== undefined) this.#duplicate = 'Content-Length';
        this.#length = value;
        return false;
      case Action.ContentType:
        if (this.contentType !== undefined) this.#duplicate = 'Content-Type';
        this.contentType = value;
        return true;
      case Action.ContentEncoding:
        this.contentEncoding = this.contentEncoding === undefined ? value : `${this.contentEncoding}, ${value}`;
        return true;
      case Action.TransferEncoding:
        if (this.#transferEncoding !== undefined) this.#duplicate = 'Transfer-Encoding';
        this.#transferEncoding = value;
        return false;
      case Action.Connection:
        this.#connection = this.#connection === undefined ? value : `${this.#connection},${value}`;
        return false;
      case Action.Upgrade:
        this.#upgrade = this.#upgrade === undefined ? value : `${this.#upgrade},${value}`;
        return false;
      case Action.UserAgent:
        this.userAgent = value;
        return true;
      case Action.Origin:
        this.origin = value;
        return true;
      case Action.Expect:
        this.#expect = this.#expect === undefined ? value : `${this.#expect},${value}`;
        return false;
      case Action.ForwardedFor:
        if (this.peer.trusted) this.forwardedFor = this.forwardedFor === '' ? value : `${this.forwardedFor}, ${value}`;
        return false;
      case Action.ForwardedProto:
        if (!this.peer.trusted) return false;
        if (value.toLowerCase() === 'https') this.forwardedProto = 'https';
        else if (this.peer.encrypted) this.forwardedProto = 'http';
        return false;
      case Action.ForwardedHost:
        if (this.peer.trusted) this.forwardedHost = value;
        return false;
      case Action.RequestId:
        if (this.peer.trusted && isRequestId(value)) this.requestId = value;
        return false;
      case Action.MaxForwards:
        // It counts for OPTIONS only, and TRACE, which is not forwarded.
        if (this.method !== 'OPTIONS') return true;
        this.maxForwards = lengthOf(value);
        return false;
      case Action.ForwardedMethod:
        this.forwardedMethod = joined(this.forwardedMethod, value);
        return false;
      case Action.ForwardedUri:
        this.forwardedUri = joined(this.forwardedUri, value);
        return false;
      case Action.PassedBy:
        if (value.includes(OWN_NAME)) this.isLoop = true;
        else if (PASSED_BY.test(value)) this.passedBy = value;
        return false;
      default:
        return false;
    }
  }

  /** Checks the fields against each other and completes the rest. */
  #conclude(): ErrorResponse | undefined {
    const { peer } = this;
    if (this.#duplicate !== '') return bad(`The header ${this.#duplicate} was sent twice.`);
    if (!this.#hasHost && this.minorVersion > 0) return bad('The header Host is missing.');
    if (!HOST.test(this.host)) return bad('The header Host is not a valid host name.');
    const framing = this.#frame();
    if (framing === undefined || framing >= 0) this.contentLength = framing ?? NO_LENGTH;
    else if (framing === CHUNKED) this.chunked = true;
    else return this.#framingError();
    if (this.#expect !== undefined) {
      if (this.#expect.toLowerCase() !== '100-continue')
        return bad('The only supported expectation is "100-continue".');
      // RFC 9110 section 10.1.1: without a body, and from HTTP/1.0, it means nothing.
      this.expectsContinue = this.minorVersion > 0 && this.hasBody;
    }
    // RFC 9112 section 9.3: no connection of HTTP/1.0 is kept open by a proxy.
    this.closes = this.minorVersion === 0;
    if (this.#connection !== undefined) {
      this.closes ||= lists(this.#connection, 'close');
      // RFC 9110 section 7.8: ignored in HTTP/1.0.
      if (this.#upgrade !== undefined && this.minorVersion > 0 && lists(this.#connection, 'upgrade'))
        this.upgrade = this.#upgrade.toLowerCase();
      this.passed = withoutListed(this.passed, this.#connection, KEPT);
    }
    this.ip = this.forwardedFor === '' ? peer.ip : callerAddress(this.forwardedFor, peer.ip, peer.isTrusted);
    this.forwardedFor = this.forwardedFor === '' ? peer.ip : `${this.forwardedFor}, ${peer.ip}`;
    if (this.forwardedHost === '' || !HOST.test(this.forwardedHost)) this.forwardedHost = this.host;
    return undefined;
  }

  /** The length of the body, undefined for none, {@link CHUNKED}, or another negative number when it is ambiguous. */
  #frame(): number | undefined {
    if (this.#transferEncoding === undefined) {
      if (this.#length === undefined) return undefined;
      const length = lengthOf(this.#length);
      return length < 0 ? AMBIGUOUS : length;
    }
    const only = this.#transferEncoding.toLowerCase() === 'chunked' && this.#length === undefined;
    return only && this.minorVersion > 0 ? CHUNKED : AMBIGUOUS;
  }

  #framingError(): ErrorResponse {
    if (this.#transferEncoding === undefined) return bad('Content-Length is not a number of bytes.');
    if (this.#transferEncoding.toLowerCase() !== 'chunked')
      return bad('The only supported transfer coding is "chunked".');
    if (this.minorVersion === 0) return bad('HTTP/1.0 has no transfer codings.');
    return bad('Content-Length and Transfer-Encoding together make the end of the body ambiguous.');
  }
}

const AMBIGUOUS = -3;

/** Values of fields with one name (RFC 9110 section 5.3). */
const joined = (before: string | undefined, value: string): string =>
  before === undefined ? value : `${before}, ${value}`;
