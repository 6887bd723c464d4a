import { setsSessionCookie } from './cookies.js';
import {
  type FieldSink,
  FieldTable,
  hasTabbedFraming,
  lengthOf,
  lists,
  type Malformed,
  malformed,
  readFields,
  withoutListed,
} from './fields.js';
import type { HeadScan } from './scan.js';

/** How the gateway changes the headers of responses: one per route. */
export interface ResponsePolicy {
  /** The upstream may act as the console's origin; otherwise its pages are sandboxed (Content-Security-Policy). */
  readonly trustedOrigin: boolean;
  /** Only the management API may set the session cookie. */
  readonly maySetSession: boolean;
  /** The gateway writes the CORS headers and drops the upstream's. */
  readonly ownCors: boolean;
}

/** Where the body of a response ends (RFC 9112 section 6.3). */
export type Framing = 'none' | 'length' | 'chunked' | 'close';

enum Action {
  Pass = 0,
  Drop,
  SetCookie,
  ContentLength,
  ContentType,
  TransferEncoding,
  Connection,
  KeepAlive,
  Upgrade,
  Date,
  Cors,
  NeedsTrust,
}

const ACTIONS: Readonly<Record<string, Action>> = {
  'set-cookie': Action.SetCookie,
  'content-length': Action.ContentLength,
  'content-type': Action.ContentType,
  'transfer-encoding': Action.TransferEncoding,
  connection: Action.Connection,
  'keep-alive': Action.KeepAlive,
  upgrade: Action.Upgrade,
  date: Action.Date,
  'proxy-connection': Action.Drop,
  'proxy-authenticate': Action.Drop,
  'proxy-authorization': Action.Drop,
  te: Action.Drop,
  trailer: Action.Drop,
  'x-request-id': Action.Drop,
  // These apply to the whole origin, which is the console's too.
  'clear-site-data': Action.NeedsTrust,
  'service-worker-allowed': Action.NeedsTrust,
  'strict-transport-security': Action.NeedsTrust,
  'alt-svc': Action.NeedsTrust,
  nel: Action.NeedsTrust,
  'report-to': Action.NeedsTrust,
  'reporting-endpoints': Action.NeedsTrust,
};

const TABLE = new FieldTable((name) =>
  Object.hasOwn(ACTIONS, name) ? ACTIONS[name]! : name.startsWith('access-control-') ? Action.Cors : Action.Pass,
);

/** Fields that pass whatever `Connection` says: without them the message means something else. The first two are no fields. */
const KEPT = new Set(['close', 'keep-alive', 'content-type', 'content-encoding', 'set-cookie', 'date']);
const EVENT_STREAM = /^text\/event-stream\s*(?:;|$)/i;

/** The head of an upstream's response. */
export class ResponseHead implements FieldSink {
  status = 0;
  reason = '';
  /** The fields for the caller, each line with its CRLF, without framing. */
  lines = '';
  /** Bytes; -1 without the field. */
  contentLength = -1;
  eventStream = false;
  hasDate = false;
  /** The upstream's connection can carry another request afterwards. */
  keepsOpen = true;
  /** Seconds that the upstream says it keeps an idle connection; -1 when it does not say. */
  keepAliveS = -1;
  upgrade = '';
  framing: Framing = 'close';
  #transferEncoding = '';
  #connection = '';
  #lengths = 0;

  private constructor(private readonly policy: ResponsePolicy) {}

  /**
   * Reads a response's head (RFC 9112 section 4), strictly.
   * @param text to the CRLF of its last field
   * @param scan where its lines are
   * @param method of the request: the response to HEAD has no body
   */
  static read(text: string, scan: HeadScan, method: string, policy: ResponsePolicy): ResponseHead | Malformed {
    if (scan.hasTab && hasTabbedFraming(text))
      return malformed('a header that frames the response has a tab around its value');
    const end = scan.ends[0]!;
    const isOld = text.startsWith('HTTP/1.0 ');
    const status = statusAt(text, STATUS_AT);
    // RFC 9112 section 4: without a reason, some servers leave out the space before it too.
    const isWhole = end === STATUS_AT + 3 || (end > STATUS_AT + 3 && text[STATUS_AT + 3] === ' ');
    if (!(isOld || text.startsWith('HTTP/1.1 ')) || status < 100 || !isWhole)
      return malformed('the status line is not one of HTTP/1.1');
    const head = new ResponseHead(policy);
    head.status = status;
    head.reason = text.slice(STATUS_AT + 4, end);
    const lines = readFields(text, scan, TABLE, head);
    if (typeof lines !== 'string') return lines;
    head.lines = head.#connection === '' ? lines : withoutListed(lines, head.#connection, KEPT);
    const why = head.#frame(method, isOld);
    return why === undefined ? head : malformed(why);
  }

  field(action: Action, value: string): boolean {
    switch (action) {
      case Action.SetCookie:
        return this.policy.maySetSession || !setsSessionCookie(value);
      case Action.ContentLength:
        this.#lengths++;
        this.contentLength = lengthOf(value);
        return false;
      case Action.ContentType:
        this.eventStream = EVENT_STREAM.test(value);
        return true;
      case Action.TransferEncoding:
        this.#transferEncoding = this.#transferEncoding === '' ? value.toLowerCase() : 'repeated';
        if (value === '') this.#transferEncoding = 'empty';
        return false;
      case Action.Connection:
        this.#connection = this.#connection === '' ? value : `${this.#connection},${value}`;
        return false;
      case Action.KeepAlive: {
        const timeout = /(?:^|[\s,])timeout=(\d{1,6})(?:$|[\s,])/i.exec(value);
        if (timeout) this.keepAliveS = Number(timeout[1]);
        return false;
      }
      case Action.Upgrade:
        this.upgrade = value.toLowerCase();
        return false;
      case Action.Date:
        this.hasDate = true;
        return true;
      case Action.Cors:
        return !this.policy.ownCors;
      case Action.NeedsTrust:
        return this.policy.trustedOrigin;
      default:
        return false;
    }
  }

  /** Decides where the body ends; returns what is wrong. */
  #frame(method: string, isOld: boolean): string | undefined {
    this.keepsOpen = isOld ? lists(this.#connection, 'keep-alive') : !lists(this.#connection, 'close');
    if (this.#lengths > 1) return 'Content-Length was sent twice';
    if (this.#lengths === 1 && this.contentLength < 0) return 'Content-Length is not a number';
    const coded = this.#transferEncoding !== '';
    if (coded && this.#transferEncoding !== 'chunked') return 'the only supported transfer coding is "chunked"';
    if (coded && this.#lengths > 0) return 'Content-Length and Transfer-Encoding were sent together';
    if (coded && isOld) return 'HTTP/1.0 has no transfer codings';
    const { status } = this;
    if (status < 200 || status === 204) {
      if (coded) return `a response with status ${status} has no transfer coding`;
      // A body that comes all the same would be read as the next response.
      if (this.contentLength > 0) this.keepsOpen = false;
      this.contentLength = -1;
      this.framing = 'none';
    } else if (method === 'HEAD' || status === 304) this.framing = 'none';
    else if (coded) this.framing = 'chunked';
    else if (this.#lengths > 0) this.framing = this.contentLength === 0 ? 'none' : 'length';
    else {
      this.framing = 'close';
      this.keepsOpen = false;
    }
    return undefined;
  }
}

const STATUS_AT = 'HTTP/1.1 '.length;

/** A status of three digits; negative when it is none. */
function statusAt(text: string, at: number): number {
  let status = 0;
  for (let i = at; i < at + 3; i++) {
    const digit = text.charCodeAt(i) - 0x30;
    if (!(digit >= 0 && digit <= 9)) return -1;
    status = status * 10 + digit;
  }
  return status;
}
