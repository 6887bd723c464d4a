import type { IncomingMessage, ServerResponse } from 'node:http';
import type { DenialReason } from '@latchkey/contracts';
import type { Dispatcher } from 'undici';
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

/** How a request is to be forwarded: everything decided, nothing left to look up. */
export interface Plan {
  readonly upstream: Upstream;
  readonly path: string;
  /** Name and value by turns, ready for the upstream. */
  readonly headers: string[];
  /** The body when it was read already; otherwise it is streamed from the request. */
  readonly body: Buffer | undefined;
  readonly hasBody: boolean;
  readonly requestId: string;
  readonly timeoutMs: number;
  readonly policy: ResponsePolicy;
  /** Further headers of the answer, name and value by turns. */
  readonly extra: readonly string[] | undefined;
  /** Keeps the exchange under its token while it is open: see Verifier.watch. None on routes without a token. */
  readonly watch: ((cut: (reason: DenialReason) => void) => () => void) | undefined;
  /** Only once its answer has begun: what it does may be to end its own token, and to wait until that is so everywhere. */
  readonly watchAnswerOnly?: boolean;
  readonly expectsContinue: boolean;
  /** A part of Latchkey itself: when nothing is there, the answer is 503 with this detail. */
  readonly unavailableDetail: string | undefined;
}

/** What all exchanges of a door share. */
export interface ExchangeDeps {
  readonly open: OpenExchanges;
  /** Longest silence while a request body is awaited. */
  readonly bodyIdleMs: number;
  readonly upstreamFailed: (requestId: string, error: Error, code: string) => void;
}

/** What is open for longer than this, a body on its way in either direction or a wait, is kept under its token like a stream. */
export const WATCHED_AFTER_MS = 1_000;
/** How long a caller may take none of an answer before it is given up. */
export const CALLER_STALL_MS = 120_000;

/** Longest answer that is sent together with its head. */
const COPIED_BYTES_MAX = 8_192;

const IDEMPOTENT = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE']);
const CONNECTION_LOST = new Set(['UND_ERR_SOCKET', 'ECONNRESET', 'EPIPE']);
const NOTHING_THERE = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EHOSTUNREACH', 'ENETUNREACH', 'EAI_AGAIN']);
const TOO_SLOW = new Set(['UND_ERR_HEADERS_TIMEOUT', 'UND_ERR_CONNECT_TIMEOUT', 'ETIMEDOUT']);

/** One request and its answer, between a caller and an upstream: undici's handler and its state in one object. */
export class Exchange implements Dispatcher.DispatchHandler, Timed {
  /** An event stream: it may be silent for as long as it likes. */
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

  /** Sends the request on. The answer follows by itself. */
  start(): void {
    if (this.res.destroyed) return;
    this.deps.open.add(this);
    this.res.on('close', this.#onCallerClose);
    if (this.plan.hasBody && !this.plan.body) {
      this.#body = new RequestBody(this.req);
      // undici tells of its failure; without a listener it would end the process when nobody reads it any more.
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
    if (this.#over) controller.abort(new Error('the caller went away'));
  }

  onBodySent(): void {
    this.#lastMs = this.deps.open.nowMs;
  }

  onResponseStart(_controller: Dispatcher.DispatchController, status: number, headers: UpstreamHeaders): void {
    // Interim answers (1xx) are between the upstream and us.
    if (status < 200 || this.#over) return;
    this.#status = status;
    this.#lastMs = this.deps.open.nowMs;
    const { plan } = this;
    const head = readResponseHead(headers, status, plan.policy, plan.requestId, plan.extra);
    this.#contentLength = head.contentLength;
    this.endless = head.eventStream;
    if (head.eventStream && !this.#watch()) return;
    this.res.writeHead(status, head.headers);
    // The head of a stream says that it is open; nothing may follow for a long time.
    if (head.eventStream) this.res.flushHeaders();
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#over) return;
    this.#lastMs = this.deps.open.nowMs;
    if (chunk.length === this.#contentLength) {
      this.#ended = true;
      // As text, head and body are one write; for little ones that is worth the copy.
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
    if (this.#status === 0 && this.#mayRetry(code)) {
      this.#retried = true;
      this.#controller = undefined;
      this.#dispatch(this.plan.upstream.fresh);
      return;
    }
    this.#fail(error, code);
  }

  #mayRetry(code: string): boolean {
    return !this.#retried && !this.plan.hasBody && CONNECTION_LOST.has(code) && IDEMPOTENT.has(this.req.method ?? '');
  }

  #fail(error: Error, code: string): void {
    if (this.res.destroyed || (this.req.destroyed && !this.req.complete)) return void this.#close();
    this.deps.upstreamFailed(this.plan.requestId, error, code);
    if (this.#status !== 0 || this.res.headersSent) {
      // The head is out: only a broken connection still tells the caller that the rest is missing.
      this.#close();
      this.res.destroy();
      return;
    }
    const { unavailableDetail, timeoutMs } = this.plan;
    this.#refuse(
      unavailableDetail === undefined
        ? refusalFor(code, timeoutMs)
        : { code: 'unavailable', detail: unavailableDetail },
    );
  }

  #refuse(refusal: ErrorResponse): void {
    this.#close();
    sendError(this.res, refusal, this.plan.requestId);
  }

  readonly #onDrain = (): void => {
    this.#lastMs = this.deps.open.nowMs;
    this.#controller?.resume();
  };

  readonly #onCallerClose = (): void => {
    if (!this.#over) this.#close();
  };

  /** Ends the upstream's side and all that is kept for this exchange. */
  #close(): void {
    this.#over = true;
    this.deps.open.remove(this);
    this.#unwatch?.();
    if (!this.#ended) this.#controller?.abort(new Error('the caller went away'));
    this.#body?.destroy();
  }

  /** Puts the exchange under its token; false when the token was found wanting there and then. */
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
      // No more of a body is read, so nothing else can come on this connection.
      if (!this.req.complete) this.res.shouldKeepAlive = false;
      this.#refuse(
        reason === 'unavailable'
          ? { code: 'unavailable', detail: 'The token cannot be checked now. Try again shortly.' }
          : { code: 'invalid_token', detail: 'The token stopped being accepted while the request was under way.' },
      );
      return;
    }
    this.#close();
    this.res.destroy();
  }

  tick(nowMs: number): void {
    const mayWatch = this.#status !== 0 || !this.plan.watchAnswerOnly;
    if (!this.#unwatch && mayWatch && nowMs - this.#openedAtMs >= WATCHED_AFTER_MS && !this.#watch()) return;
    if (this.res.headersSent) {
      const quietMs = nowMs - this.#lastMs;
      const stalled = this.res.writableNeedDrain || this.#ended;
      if (stalled ? quietMs > CALLER_STALL_MS : !this.endless && quietMs > this.plan.timeoutMs)
        this.#fail(
          new Error(stalled ? 'the caller takes nothing' : 'the upstream sends nothing'),
          'UND_ERR_BODY_TIMEOUT',
        );
      return;
    }
    const awaitedSinceMs = this.req.complete ? 0 : (this.#body?.awaitedSinceMs ?? 0);
    if (awaitedSinceMs === 0) {
      if (nowMs - this.#lastMs > this.plan.timeoutMs)
        this.#fail(new Error('the upstream is silent'), 'UND_ERR_HEADERS_TIMEOUT');
    } else if (nowMs - awaitedSinceMs > this.deps.bodyIdleMs) {
      this.res.shouldKeepAlive = false;
      this.#refuse({ code: 'request_timeout', detail: `No more of the body came for ${this.deps.bodyIdleMs} ms.` });
    }
  }

  abandon(): void {
    if (this.#over) return;
    this.#close();
    this.res.destroy();
  }
}

/** What the caller is told when the upstream failed before it answered. */
export function refusalFor(code: string, timeoutMs: number): ErrorResponse {
  if (TOO_SLOW.has(code))
    return { code: 'upstream_timeout', detail: `The upstream did not answer within ${timeoutMs} ms.` };
  if (code === 'UND_ERR_INVALID_ARG' || code === 'UND_ERR_REQ_CONTENT_LENGTH_MISMATCH')
    return { code: 'invalid_request', detail: 'The request cannot be written for the upstream as it came.' };
  return {
    code: 'bad_gateway',
    detail: NOTHING_THERE.has(code)
      ? 'The upstream cannot be reached.'
      : 'The upstream closed the connection or did not speak HTTP.',
  };
}
