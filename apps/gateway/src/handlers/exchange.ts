import type { IncomingMessage, ServerResponse } from 'node:http';
import type { DenialReason } from '@latchkey/contracts';
import type { Dispatcher } from 'undici';
import { errorForCut } from '../check/index.js';
import {
  type ErrorResponse,
  type ResponsePolicy,
  readResponseHead,
  sendError,
  type UpstreamHeaders,
} from '../http/index.js';
import type { OpenExchanges, Timed } from '../streams/index.js';
import { RequestBody } from './request-body.js';
import type { Upstream } from './upstreams.js';

/** How to forward a request; everything is decided. */
export interface Plan {
  readonly upstream: Upstream;
  readonly path: string;
  /** Alternating names and values, ready for the upstream. */
  readonly headers: string[];
  /** A body already read; otherwise it is streamed from the request. */
  readonly body: Buffer | undefined;
  readonly hasBody: boolean;
  readonly requestId: string;
  readonly timeoutMs: number;
  readonly policy: ResponsePolicy;
  /** Further headers of the response, alternating names and values. */
  readonly extra: readonly string[] | undefined;
  /** Watches the token while the exchange is open: see Verifier.watch. None on routes without a token. */
  readonly watch: ((cut: (reason: DenialReason) => void) => () => void) | undefined;
  /** Watch only once the response has begun: a request can revoke its own token and wait for the confirmation. */
  readonly watchResponseOnly?: boolean;
  readonly expectsContinue: boolean;
  /** For upstreams that are part of Latchkey: a failure is 503 with this detail. */
  readonly unavailableDetail: string | undefined;
}

/** Shared by all exchanges of a handler. */
export interface ExchangeDeps {
  readonly open: OpenExchanges;
  /** Longest wait for the next bytes of a request body. */
  readonly bodyIdleMs: number;
  readonly upstreamFailed: (requestId: string, error: Error, code: string) => void;
}

/** An exchange open for longer than this is watched like a stream, whether it sends, receives or waits. */
export const WATCHED_AFTER_MS = 1_000;
/** How long a caller can read nothing of a response before it is aborted. */
export const CALLER_STALL_MS = 120_000;

/** Longest response that is sent together with its head. */
const COPIED_BYTES_MAX = 8_192;

const IDEMPOTENT = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE']);
const CONNECTION_LOST = new Set(['UND_ERR_SOCKET', 'ECONNRESET', 'EPIPE']);
const UNREACHABLE = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EHOSTUNREACH', 'ENETUNREACH', 'EAI_AGAIN']);
const TIMED_OUT = new Set(['UND_ERR_HEADERS_TIMEOUT', 'UND_ERR_CONNECT_TIMEOUT', 'ETIMEDOUT']);

/** One request and its response, between a caller and an upstream: undici's handler and its state in one object. */
export class Exchange implements Dispatcher.DispatchHandler, Timed {
  /** An event stream: its silence has no limit. */
  endless = false;
  readonly #openedAtMs: number;
  #lastMs: number;
  #controller: Dispatcher.DispatchController | undefined;
  #body: RequestBody | undefined;
  #status = 0;
  #contentLength = -1;
  #retried = false;
  #over = false;
  #ended = false;
  #unwatch: (() => void) | undefined;

  constructor(
    private readonly req: IncomingMessage,
    private readonly res: ServerResponse,
    private readonly plan: Plan,
    private readonly deps: ExchangeDeps,
  ) {
    this.#openedAtMs = deps.open.nowMs;
    this.#lastMs = deps.open.nowMs;
  }

  /** Forwards the request; the response is written as it arrives. */
  start(): void {
    if (this.res.destroyed) return;
    this.deps.open.add(this);
    this.res.on('close', this.#onCallerClose);
    if (this.plan.hasBody && !this.plan.body) {
      this.#body = new RequestBody(this.req);
      // undici reports its failure; an error event without a listener would end the process.
      this.#body.on('error', () => undefined);
      if (this.plan.expectsContinue) this.res.writeContinue();
    }
    this.#dispatch(this.plan.upstream.pooled);
  }

  #dispatch(dispatcher: Dispatcher): void {
    const { plan } = this;
    dispatcher.dispatch(
      {
        path: plan.path,
        method: this.req.method as Dispatcher.HttpMethod,
        headers: plan.headers,
        body: plan.body ?? this.#body ?? null,
      },
      this,
    );
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#over) controller.abort(new Error('the caller disconnected'));
  }

  onBodySent(): void {
    this.#lastMs = this.deps.open.nowMs;
  }

  onResponseStart(_controller: Dispatcher.DispatchController, status: number, headers: UpstreamHeaders): void {
    // Interim responses (1xx) are hop-by-hop.
    if (status < 200 || this.#over) return;
    this.#status = status;
    this.#lastMs = this.deps.open.nowMs;
    const { plan } = this;
    const head = readResponseHead(headers, status, plan.policy, plan.requestId, plan.extra);
    this.#contentLength = head.contentLength;
    this.endless = head.eventStream;
    if (head.eventStream && !this.#watch()) return;
    this.res.writeHead(status, head.headers);
    // The body of a stream can begin much later.
    if (head.eventStream) this.res.flushHeaders();
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#over) return;
    this.#lastMs = this.deps.open.nowMs;
    if (chunk.length === this.#contentLength) {
      this.#ended = true;
      // As text, head and body are one write; for small bodies that is worth the copy.
      if (chunk.length <= COPIED_BYTES_MAX) this.res.end(chunk.toString('latin1'), 'latin1');
      else this.res.end(chunk);
    } else if (!this.res.write(chunk)) {
      controller.pause();
      this.res.once('drain', this.#onDrain);
    }
  }

  onResponseEnd(): void {
    if (this.#over) return;
    if (!this.#ended) this.res.end();
    this.#ended = true;
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error & { code?: string }): void {
    if (this.#over || this.#ended) return;
    const code = error.code ?? '';
    if (this.#status === 0 && this.#canRetry(code)) {
      this.#retried = true;
      this.#controller = undefined;
      this.#dispatch(this.plan.upstream.fresh);
      return;
    }
    this.#fail(error, code);
  }

  #canRetry(code: string): boolean {
    return !this.#retried && !this.plan.hasBody && CONNECTION_LOST.has(code) && IDEMPOTENT.has(this.req.method ?? '');
  }

  #fail(error: Error, code: string): void {
    if (this.res.destroyed || (this.req.destroyed && !this.req.complete)) return void this.#close();
    this.deps.upstreamFailed(this.plan.requestId, error, code);
    if (this.#status !== 0 || this.res.headersSent) {
      // The head is sent: only a broken connection can show that the rest is missing.
      this.#close();
      this.res.destroy();
      return;
    }
    const { unavailableDetail, timeoutMs } = this.plan;
    this.#refuse(
      unavailableDetail === undefined
        ? upstreamError(code, timeoutMs)
        : { code: 'unavailable', detail: unavailableDetail },
    );
  }

  #refuse(error: ErrorResponse): void {
    this.#close();
    sendError(this.res, error, this.plan.requestId);
  }

  readonly #onDrain = (): void => {
    this.#lastMs = this.deps.open.nowMs;
    this.#controller?.resume();
  };

  readonly #onCallerClose = (): void => {
    if (!this.#over) this.#close();
  };

  /** Ends the upstream's side and releases the state of this exchange. */
  #close(): void {
    this.#over = true;
    this.deps.open.remove(this);
    this.#unwatch?.();
    if (!this.#ended) this.#controller?.abort(new Error('the caller disconnected'));
    this.#body?.destroy();
  }

  /** Watches the token; false when the token is denied at once. */
  #watch(): boolean {
    if (this.#unwatch || !this.plan.watch) return true;
    this.#unwatch = () => undefined;
    const unwatch = this.plan.watch((reason) => this.#cut(reason));
    if (this.#over) {
      unwatch();
      return false;
    }
    this.#unwatch = unwatch;
    return true;
  }

  #cut(reason: DenialReason): void {
    if (this.#over) return;
    if (!this.res.headersSent) {
      // The rest of the body is not read, so the connection cannot be reused.
      if (!this.req.complete) this.res.shouldKeepAlive = false;
      this.#refuse(errorForCut(reason));
      return;
    }
    this.#close();
    this.res.destroy();
  }

  tick(nowMs: number): void {
    const watchable = this.#status !== 0 || !this.plan.watchResponseOnly;
    if (!this.#unwatch && watchable && nowMs - this.#openedAtMs >= WATCHED_AFTER_MS && !this.#watch()) return;
    if (this.res.headersSent) {
      const quietMs = nowMs - this.#lastMs;
      const stalled = this.res.writableNeedDrain || this.#ended;
      if (stalled ? quietMs > CALLER_STALL_MS : !this.endless && quietMs > this.plan.timeoutMs)
        this.#fail(
          new Error(stalled ? 'timeout: the caller reads nothing' : 'timeout: the upstream sends nothing'),
          'UND_ERR_BODY_TIMEOUT',
        );
      return;
    }
    const awaitedSinceMs = this.req.complete ? 0 : (this.#body?.awaitedSinceMs ?? 0);
    if (awaitedSinceMs === 0) {
      if (nowMs - this.#lastMs > this.plan.timeoutMs)
        this.#fail(new Error('timeout: no response from the upstream'), 'UND_ERR_HEADERS_TIMEOUT');
    } else if (nowMs - awaitedSinceMs > this.deps.bodyIdleMs) {
      this.res.shouldKeepAlive = false;
      this.#refuse({ code: 'request_timeout', detail: `No more of the body arrived for ${this.deps.bodyIdleMs} ms.` });
    }
  }

  abandon(): void {
    if (this.#over) return;
    this.#close();
    this.res.destroy();
  }
}

/** The error response for an upstream that failed before it responded. */
export function upstreamError(code: string, timeoutMs: number): ErrorResponse {
  if (TIMED_OUT.has(code))
    return { code: 'upstream_timeout', detail: `The upstream did not respond within ${timeoutMs} ms.` };
  if (code === 'UND_ERR_INVALID_ARG' || code === 'UND_ERR_REQ_CONTENT_LENGTH_MISMATCH')
    return { code: 'invalid_request', detail: "The request's framing headers do not match its body." };
  return {
    code: 'bad_gateway',
    detail: UNREACHABLE.has(code)
      ? 'The upstream cannot be reached.'
      : 'The upstream closed the connection or did not speak HTTP.',
  };
}
