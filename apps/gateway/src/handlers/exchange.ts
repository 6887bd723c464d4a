import { errorForCut } from '../check/index.js';
import type {
  BodySink,
  CallerRequest,
  Responder,
  ResponseFraming,
  ResponseSink,
  UpstreamConnection,
  UpstreamFailure,
  UpstreamGroup,
  UpstreamPool,
} from '../engine/index.js';
import { COPIED_BYTES_MAX } from '../engine/index.js';
import type { ErrorResponse, ResponseHead, ResponsePolicy } from '../http/index.js';
import type { OpenExchanges, Timed } from '../streams/index.js';
import { Tunnel, type Watch } from './tunnel.js';

/** How to forward a request; everything is decided. */
export interface Plan {
  readonly upstream: UpstreamPool;
  /** Where the request is sent when no connection to `upstream` can be opened. */
  readonly group?: UpstreamGroup | undefined;
  /** The Host field; undefined: the upstream's own. */
  readonly host?: string | undefined;
  readonly path: string;
  /** Header lines for the upstream, each with its CRLF; without Host and framing. */
  readonly lines: string;
  /** A body already read, released once it was sent; otherwise it is streamed from the request. */
  body: Buffer | undefined;
  readonly timeoutMs: number;
  readonly policy: ResponsePolicy;
  /** Further header lines of every response. */
  readonly extra: string;
  /** Watches the token while the exchange is open: see Verifier.watch. None on routes without a token. */
  readonly watch: Watch | undefined;
  /** Watch only once the response has begun: a request can revoke its own token and wait for the confirmation. */
  readonly watchResponseOnly?: boolean;
  /** A WebSocket handshake. */
  readonly isUpgrade?: boolean;
  /** For upstreams that are part of Latchkey: a failure is 503 with this detail. */
  readonly unavailableDetail: string | undefined;
}

/** Shared by all exchanges of a handler. */
export interface ExchangeDeps {
  readonly open: OpenExchanges;
  /** Longest wait for the next bytes of a request body. */
  readonly bodyIdleMs: number;
  readonly upstreamFailed: (requestId: string, failure: UpstreamFailure) => void;
}

/** An exchange open for longer than this is watched like a stream, whether it sends, receives or waits. */
export const WATCHED_AFTER_MS = 1_000;
/** How long a caller can read nothing of a response before it is aborted. */
export const CALLER_STALL_MS = 120_000;
/**
 * How long an upstream can take nothing of a body once it has begun to respond. The caller is not read meanwhile, so that its
 * end would not be noticed.
 */
export const UNTAKEN_BODY_MS = 120_000;
/** How long an upstream can take to say whether it wants a body; then it is sent, as without Expect (RFC 9110 section 10.1.1). */
export const CONTINUE_MS = 1_000;

const IDEMPOTENT = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE']);

/** One request and its response, between a caller and an upstream. */
export class Exchange implements ResponseSink, BodySink, Responder, Timed {
  /** An event stream, whose silence has no limit, or a handshake: a stop ends it at once. */
  endless = false;
  readonly method: string;
  readonly policy: ResponsePolicy;
  readonly #openedAtMs: number;
  #lastMs: number;
  #upstream: UpstreamPool;
  #connection: UpstreamConnection | undefined;
  /** Members of the group that could not be reached. */
  #tried = 0;
  /** When the request was sent last. */
  #sentMs = 0;
  /** What was sent behind the head; kept while another upstream can get it. */
  #sent: string | undefined;
  #framing = '';
  /** Bytes of the body that came before the request was sent. */
  #early: string | undefined = '';
  #bodyComplete = false;
  /** Since when the next bytes of the body are awaited; 0 while none are. */
  #bodySinceMs = 0;
  /** Since when the upstream has not taken those that came; undefined when it has. */
  #untakenSinceMs: number | undefined;
  #awaitsContinue = false;
  #encodes = false;
  #retried = false;
  /** The response is written, and the caller has still to read of it. */
  #ended = false;
  #over = false;
  #unwatch: (() => void) | undefined;

  constructor(
    private readonly request: CallerRequest,
    private readonly plan: Plan,
    private readonly deps: ExchangeDeps,
  ) {
    this.#upstream = plan.upstream;
    this.method = request.head.method;
    this.policy = plan.policy;
    this.endless = plan.isUpgrade === true;
    this.#openedAtMs = deps.open.nowMs;
    this.#lastMs = deps.open.nowMs;
  }

  /** Forwards the request; the response is written as it arrives. */
  start(): void {
    const { request, plan, deps } = this;
    if (request.isOver) return;
    if (plan.isUpgrade && deps.open.hasEndedStreams) return void request.refuse(STOPPING, plan.extra);
    deps.open.add(this);
    request.responder = this;
    // Before a handshake, which the upstream can delay.
    if (plan.isUpgrade && !this.#watch()) return;
    const { head } = request;
    if (plan.body || !head.hasBody) this.#bodyComplete = true;
    else if (head.expectsContinue) this.#awaitsContinue = true;
    else this.#readBody();
    if (!this.#over) this.#send(false);
  }

  #send(fresh: boolean): void {
    const { plan, request } = this;
    const { head } = request;
    // What is sent again is framed as before.
    if (this.#framing === '') {
      const length = plan.body ? plan.body.length : head.contentLength;
      this.#framing = head.chunked && !plan.body ? CHUNKED : length >= 0 ? `content-length: ${length}\r\n` : '';
    }
    const expect = this.#awaitsContinue ? EXPECT : '';
    const upgrade = plan.isUpgrade ? UPGRADE : '';
    const body = plan.body ? plan.body.toString('latin1') : this.#early!;
    this.#early = undefined;
    if (plan.group) this.#sent = body;
    this.#sentMs = this.deps.open.nowMs;
    this.#connection = this.#upstream.send(
      this,
      `${this.method} ${plan.path} HTTP/1.1\r\nhost: ${plan.host ?? this.#upstream.origin.authority}\r\n${plan.lines}${this.#framing}${expect}${upgrade}\r\n${body}`,
      this.#bodyComplete,
      fresh || plan.isUpgrade === true,
    );
    // A request with a body is not repeated, and its response can be a stream.
    plan.body = undefined;
  }

  // The request's body.

  #readBody(): void {
    this.#awaitsContinue = false;
    this.#bodySinceMs = this.deps.open.nowMs;
    this.request.readBody(this);
  }

  onBody(bytes: Buffer): void {
    // The upstream has responded to all of it: no one wants the rest.
    if (this.#over || this.#ended) return;
    this.#lastMs = this.#bodySinceMs = this.deps.open.nowMs;
    if (this.#early !== undefined) this.#early += bytes.toString('latin1');
    else if (!this.#connection!.write(bytes)) {
      this.#bodySinceMs = 0;
      this.#untakenSinceMs = this.#lastMs;
      this.request.pauseBody();
    }
  }

  onBodyEnd(tail: string): void {
    if (this.#over || this.#ended) return;
    this.#bodyComplete = true;
    this.#bodySinceMs = 0;
    this.#lastMs = this.deps.open.nowMs;
    if (this.#early !== undefined) this.#early += tail;
    else this.#connection!.finish(tail);
  }

  onBodyMalformed(): void {
    if (this.#over || this.#ended) return;
    this.#fail({ code: 'invalid_request', detail: 'The chunks of the body are not well-formed.' });
  }

  onDrain(): void {
    this.#untakenSinceMs = undefined;
    if (this.#over || this.#bodyComplete || this.#awaitsContinue) return;
    this.#bodySinceMs = this.deps.open.nowMs;
    this.request.resumeBody();
  }

  // The response.

  wantsContent(head: ResponseHead): boolean {
    return head.framing === 'chunked' && this.request.head.minorVersion === 0;
  }

  onInterim(head: ResponseHead): void {
    if (this.#over) return;
    this.#lastMs = this.deps.open.nowMs;
    this.request.interim(head.status, head.reason, head.lines);
    if (head.status === 100 && this.#awaitsContinue) this.#readBody();
  }

  onResponse(head: ResponseHead, buffer: Buffer, start: number, end: number, tail: string | undefined): void {
    if (this.#over) return;
    const { request, plan } = this;
    this.#upstream.health?.succeeded();
    this.#sent = undefined;
    this.#lastMs = this.deps.open.nowMs;
    this.endless = head.eventStream;
    if (head.eventStream && this.deps.open.hasEndedStreams) return void this.#fail(STOPPING);
    if (head.eventStream && !this.#watch()) return;
    const framing = this.#framingFor(head);
    const together = framing !== 'none' && !this.#encodes && end - start <= COPIED_BYTES_MAX;
    const body = together ? buffer.toString('latin1', start, end) + (tail ?? '') : '';
    const sandbox = this.policy.trustedOrigin ? '' : SANDBOX;
    const lines = `${head.lines}${sandbox}${plan.extra}`;
    request.begin(head.status, head.reason, lines, framing, head.contentLength, head.hasDate, body);
    if (together) {
      if (request.isStalled) this.#connection?.pause();
    } else if (end > start) {
      this.onData(buffer, start, end);
      if (tail) request.write(tail);
    }
  }

  /** How the caller finds the end: an HTTP/1.0 caller by the end of the connection, others never. */
  #framingFor(head: ResponseHead): ResponseFraming {
    if (head.framing === 'none' || head.framing === 'length') return head.framing;
    if (this.request.head.minorVersion === 0) return 'close';
    this.#encodes = head.framing === 'close';
    return 'chunked';
  }

  onData(buffer: Buffer, start: number, end: number): void {
    if (this.#over) return;
    this.#lastMs = this.deps.open.nowMs;
    const { request } = this;
    const bytes = buffer.subarray(start, end);
    const written = this.#encodes
      ? request.write(Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, CRLF]))
      : request.write(Buffer.from(bytes));
    if (!written) this.#connection?.pause();
  }

  onEnd(tail: string): void {
    if (this.#over) return;
    this.#connection = undefined;
    const last = this.#encodes ? LAST_CHUNK : tail;
    if (last !== '') this.request.write(last);
    // Until the caller has read it, the token is watched and the limit of time holds.
    if (this.request.isStalled) this.#ended = true;
    else this.#end();
  }

  #end(): void {
    this.#close();
    this.request.end();
  }

  onUpgrade(head: ResponseHead, buffer: Buffer, start: number, end: number): void {
    if (this.#over) return;
    if (!this.plan.isUpgrade || head.upgrade !== 'websocket')
      return void this.#upstreamFailed({ kind: 'malformed', reason: 'the upstream switched to a protocol unasked' });
    const connection = this.#connection!;
    this.#upstream.health?.succeeded();
    this.#connection = undefined;
    this.#close();
    new Tunnel(this.request, connection, this.plan.watch, this.deps.open).start(head, buffer.subarray(start, end));
  }

  onFailure(failure: UpstreamFailure): void {
    if (this.#over) return;
    // What has brought anything was not closed while it was idle: the upstream can have begun with the request.
    const connection = this.#connection;
    const wasStale = connection?.reused === true && !connection.hasHeard;
    this.#connection = undefined;
    if (failure.kind === 'lost' && wasStale && this.#canRetry()) {
      this.#retried = true;
      this.#early = '';
      return void this.#send(true);
    }
    if (!wasStale && failure.kind !== 'internal') this.#countFailure(failure);
    if (connection && !connection.connected && this.#sendToAnother(connection)) return;
    this.#upstreamFailed(failure);
  }

  /** Only what comes before a response tells of the upstream: later, a caller can be at fault. */
  #countFailure({ reason }: UpstreamFailure): void {
    if (!this.request.hasResponse) this.#upstream.health?.failed(reason, performance.now());
  }

  /** Nothing of the request has left, so any method is sent again, with what has come of its body. */
  #sendToAnother(connection: UpstreamConnection): boolean {
    const { group } = this.plan;
    // After a repeat, the first connection can have carried it.
    if (!group || this.#retried || this.#sent === undefined) return false;
    this.#tried |= group.bitOf(this.#upstream);
    const next = group.pick(this.#tried);
    if (!next) return false;
    this.#upstream = next;
    this.#early = this.#sent + connection.unsent.toString('latin1');
    this.#send(false);
    this.onDrain();
    return true;
  }

  #canRetry(): boolean {
    const { request } = this;
    return !this.#retried && !request.hasResponse && !request.head.hasBody && IDEMPOTENT.has(this.method);
  }

  #upstreamFailed(failure: UpstreamFailure): void {
    this.deps.upstreamFailed(this.request.head.requestId, failure);
    const { unavailableDetail, timeoutMs } = this.plan;
    this.#fail(
      unavailableDetail === undefined
        ? upstreamError(failure, timeoutMs)
        : { code: 'unavailable', detail: unavailableDetail },
    );
  }

  /** Ends with an error response; once a response has begun, only a broken connection shows that its rest is missing. */
  #fail(error: ErrorResponse): void {
    this.#close();
    if (this.request.hasResponse) this.request.destroy();
    else this.request.refuse(error, this.plan.extra);
  }

  onCallerDrain(): void {
    this.#lastMs = this.deps.open.nowMs;
    if (this.#ended && !this.#over) this.#end();
    else this.#connection?.resume();
  }

  onCallerClose(): void {
    if (!this.#over) this.#close();
  }

  onTimeout(error: ErrorResponse): void {
    if (!this.#over) this.#fail(error);
  }

  /** Ends the upstream's side and releases the state of this exchange. */
  #close(): void {
    this.#over = true;
    this.deps.open.remove(this);
    this.#unwatch?.();
    this.#connection?.destroy();
    this.#connection = undefined;
  }

  /** Watches the token; false when the token is denied at once. */
  #watch(): boolean {
    if (this.#unwatch || !this.plan.watch) return true;
    this.#unwatch = () => undefined;
    const unwatch = this.plan.watch((reason) => {
      if (!this.#over) this.#fail(errorForCut(reason));
    });
    if (this.#over) {
      unwatch();
      return false;
    }
    this.#unwatch = unwatch;
    return true;
  }

  tick(nowMs: number): void {
    const { request, plan, deps } = this;
    const watchable = request.hasResponse || !plan.watchResponseOnly;
    if (!this.#unwatch && watchable && nowMs - this.#openedAtMs >= WATCHED_AFTER_MS && !this.#watch()) return;
    if (request.hasResponse) {
      const quietMs = nowMs - this.#lastMs;
      if (request.isStalled ? quietMs > CALLER_STALL_MS : !this.endless && quietMs > plan.timeoutMs)
        this.#upstreamFailed({
          kind: 'lost',
          reason: request.isStalled ? 'timeout: the caller reads nothing' : 'timeout: the upstream sends nothing',
        });
      else if (this.#untakenSinceMs !== undefined && nowMs - this.#untakenSinceMs > UNTAKEN_BODY_MS)
        this.#upstreamFailed({ kind: 'lost', reason: 'timeout: the upstream takes no more of the body' });
    } else if (this.#awaitsContinue) {
      if (nowMs - this.#lastMs <= CONTINUE_MS) return;
      request.interim(100, 'Continue', '');
      this.#readBody();
    } else if (this.#bodySinceMs === 0) {
      if (nowMs - this.#lastMs <= plan.timeoutMs) return;
      // Not when another upstream has used up the time.
      if (nowMs - this.#sentMs >= Math.min(plan.timeoutMs, ENOUGH_MS)) this.#countFailure(NO_RESPONSE);
      this.#upstreamFailed(NO_RESPONSE);
    } else if (nowMs - this.#bodySinceMs > deps.bodyIdleMs) {
      this.#fail({ code: 'request_timeout', detail: `No more of the body arrived for ${deps.bodyIdleMs} ms.` });
    }
  }

  abandon(): void {
    if (this.#over) return;
    this.#close();
    this.request.destroy();
  }
}

/** An upstream that has had less time before a timeout is not to blame. */
const ENOUGH_MS = 5_000;
const NO_RESPONSE: UpstreamFailure = { kind: 'connect timeout', reason: 'timeout: no response from the upstream' };
const STOPPING: ErrorResponse = {
  code: 'unavailable',
  detail: 'This gateway stops and begins no stream any more. Try again: another one serves, or will shortly.',
};
const CHUNKED = 'transfer-encoding: chunked\r\n';
const EXPECT = 'expect: 100-continue\r\n';
const UPGRADE = 'connection: Upgrade\r\nupgrade: websocket\r\n';
const SANDBOX = 'content-security-policy: sandbox\r\n';
const CRLF = Buffer.from('\r\n');
const LAST_CHUNK = '0\r\n\r\n';

/** The error response for an upstream that failed before it responded. */
function upstreamError({ kind }: UpstreamFailure, timeoutMs: number): ErrorResponse {
  if (kind === 'internal') return { code: 'internal', detail: 'The gateway failed; see its log for this requestId.' };
  if (kind === 'connect timeout')
    return { code: 'upstream_timeout', detail: `The upstream did not respond within ${timeoutMs} ms.` };
  return {
    code: 'bad_gateway',
    detail:
      kind === 'unreachable'
        ? 'The upstream cannot be reached.'
        : 'The upstream closed the connection or did not speak HTTP.',
  };
}
