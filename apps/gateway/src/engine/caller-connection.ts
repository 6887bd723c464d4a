import type { Socket } from 'node:net';
import { LIMITS } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import {
  type BodyReader,
  ChunkedBody,
  type ErrorResponse,
  FIELDS_MAX,
  HeadScan,
  LengthBody,
  type Peer,
  RequestHead,
  TARGET_LENGTH_MAX,
  TOO_MANY,
} from '../http/index.js';
import { type BodySink, CallerRequest, type Connection, type TunnelSink } from './caller-request.js';

/** What the connections of a listener share. */
export interface ConnectionDeps {
  onRequest(request: CallerRequest): void;
  /** A response was completed or broken off. */
  onResponse(request: CallerRequest): void;
  onClosed(connection: CallerConnection): void;
  /** A Date line (RFC 9110 section 6.6.1), renewed every second. */
  readonly date: string;
  /** The listener stops: connections close after their present response. */
  readonly isStopping: boolean;
  /** So many connections close after their next response, because other processes are less busy. */
  surplus: number;
  /** By the clock of the listener's tick. */
  readonly nowMs: number;
}

/** Longest time until a head is complete. */
export const HEAD_TIMEOUT_MS = 10_000;
/** Longest time until a whole request, body included, has arrived. */
export const REQUEST_TIMEOUT_MS = 3_600_000;
/** Longer than the idle timeout of most load balancers. */
export const KEEP_ALIVE_MS = 65_000;
/** How long a caller can take to read the end of its last response. */
export const UNREAD_MS = 120_000;
/** How long a body is read and discarded after the response. */
export const UNWANTED_BODY_MS = 2_000;
/** Bytes of requests that came before their turn; more are left to the kernel. */
const AHEAD_BYTES_MAX = 65_536;

const scan = new HeadScan();
const CR = 0x0d;
const LF = 0x0a;

/** What is awaited of the caller. */
enum Awaited {
  Head,
  Body,
  /** Nothing until the response is complete. */
  Response,
  /** Nothing at all: what comes is discarded until the caller has read the response. */
  Nothing,
  Tunnel,
}

/** One connection of a caller: its requests, one after the other (RFC 9112 section 9.3.2). */
export class CallerConnection implements Connection {
  #awaited = Awaited.Head;
  #request: CallerRequest | undefined;
  #body: BodyReader | undefined;
  #sink: BodySink | undefined;
  #tunnel: TunnelSink | undefined;
  #payload: number[] | undefined;
  #bodyPaused = true;
  /** Bytes not read yet. */
  #ahead: Buffer | undefined;
  #closes = false;
  /** An empty line was ignored since the last request. */
  #hadEmptyLine = false;
  #isTaking = false;
  /** Since when what is awaited is awaited. */
  #sinceMs: number;
  #isFirst = true;

  constructor(
    private readonly socket: Socket,
    readonly peer: Peer,
    private readonly deps: ConnectionDeps,
  ) {
    this.#sinceMs = deps.nowMs;
    socket.on('data', (chunk: Buffer) => this.#onData(chunk));
    socket.on('drain', () => this.#onDrain());
    socket.on('end', () => this.#onEnd());
    // A reset by the caller must not end the process; 'close' follows.
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.#onClose());
  }

  get date(): string {
    return this.deps.date;
  }

  get isStalled(): boolean {
    return this.socket.writableNeedDrain;
  }

  /** Neither a request nor a tunnel is open. */
  get isIdle(): boolean {
    return this.#request === undefined && this.#tunnel === undefined;
  }

  isBodyComplete(request: CallerRequest): boolean {
    return request !== this.#request || this.#body === undefined;
  }

  #onData(chunk: Buffer): void {
    switch (this.#awaited) {
      case Awaited.Nothing:
        return;
      case Awaited.Tunnel:
        return void this.#tunnel!.onData(chunk);
      default:
        // The time for a head after an idle connection begins with its first byte.
        if (!this.#ahead && this.#awaited === Awaited.Head && !this.#isFirst) this.#sinceMs = this.deps.nowMs;
        this.#ahead = this.#ahead ? Buffer.concat([this.#ahead, chunk]) : chunk;
        this.#take();
        if (this.#ahead && !this.#takesHead && this.#ahead.length > AHEAD_BYTES_MAX) this.socket.pause();
    }
  }

  /** A caller that does not read its responses gets no more of them: they would be kept in memory. */
  get #takesHead(): boolean {
    return this.#awaited === Awaited.Head && !this.socket.writableNeedDrain;
  }

  #onDrain(): void {
    if (this.#tunnel) this.#tunnel.onDrain();
    else if (this.#request) this.#request.responder?.onCallerDrain();
    else if (this.#awaited === Awaited.Head) this.#next();
  }

  /** Reads what has arrived as far as its turn has come. */
  #take(): void {
    if (this.#isTaking) return;
    this.#isTaking = true;
    try {
      while (this.#ahead) {
        const before: Buffer = this.#ahead;
        if (this.#takesHead) this.#takeHead(before);
        else if (this.#awaited === Awaited.Body && !this.#bodyPaused) this.#takeBody(before);
        if (this.#ahead === before) break;
      }
    } finally {
      this.#isTaking = false;
    }
  }

  #takeHead(bytes: Buffer): void {
    let at = 0;
    // RFC 9112 section 2.2: an empty line before a request is ignored.
    if (bytes[0] === CR && bytes[1] === LF && !this.#hadEmptyLine) at = 2;
    if (at === bytes.length) {
      // It came with the request before: the connection is as idle as without it.
      this.#hadEmptyLine = true;
      this.#ahead = undefined;
      return;
    }
    const end = scan.scan(bytes, at);
    const length = (end > 0 ? end : bytes.length) - at;
    if (length > LIMITS.headerBytesMax)
      return void this.#refuseHead(
        bytes.indexOf('\r\n', at) - at > TARGET_LENGTH_MAX ? TARGET_TOO_LONG : HEAD_TOO_LARGE,
      );
    // A caller of another protocol is refused at once: it waits for no time limit.
    if (end < 0) return void this.#refuseHead(end === TOO_MANY ? TOO_MANY_FIELDS : NOT_HTTP);
    if (end === 0) return;
    this.#hadEmptyLine = false;
    this.#ahead = end < bytes.length ? bytes.subarray(end) : undefined;
    const head = new RequestHead(this.peer);
    const error = head.read(bytes.toString('latin1', at, end - 2), scan);
    const request = new CallerRequest(head, this);
    this.#request = request;
    this.#isFirst = false;
    this.#closes = head.closes || this.deps.isStopping;
    this.#sinceMs = this.deps.nowMs;
    if (error) {
      // Where such a request ends is ambiguous, so nothing after it is read.
      this.#closes = true;
      this.#ahead = undefined;
      this.#awaited = Awaited.Nothing;
      return void request.refuse(error);
    }
    this.#body = head.chunked
      ? new ChunkedBody()
      : head.contentLength > 0
        ? new LengthBody(head.contentLength)
        : undefined;
    this.#bodyPaused = true;
    this.#awaited = this.#body ? Awaited.Body : Awaited.Response;
    this.deps.onRequest(request);
  }

  #refuseHead(error: ErrorResponse): void {
    const head = new RequestHead(this.peer);
    head.requestId = newId();
    const request = new CallerRequest(head, this);
    this.#request = request;
    this.#closes = true;
    this.#ahead = undefined;
    this.#awaited = Awaited.Nothing;
    request.refuse(error);
  }

  #takeBody(bytes: Buffer): void {
    const body = this.#body!;
    const payload = this.#payload;
    const end = body.read(bytes, 0, payload);
    if (end < 0) {
      this.#closes = true;
      this.#ahead = undefined;
      this.#awaited = Awaited.Nothing;
      return void this.#sink?.onBodyMalformed();
    }
    this.#ahead = body.end < bytes.length ? bytes.subarray(body.end) : undefined;
    const sink = this.#sink;
    if (payload) {
      for (let i = 0; i < payload.length; i += 2) sink?.onBody(bytes.subarray(payload[i], payload[i + 1]));
      payload.length = 0;
    } else if (end > 0) sink?.onBody(bytes.subarray(0, end));
    // Its sink can have ended the response and with it the connection.
    if (!body.complete || this.#awaited !== Awaited.Body) return;
    this.#body = undefined;
    this.#sink = undefined;
    this.#awaited = Awaited.Response;
    sink?.onBodyEnd(payload ? '' : body.tail);
    if (this.#request?.isOver && this.#awaited === Awaited.Response) this.#next();
  }

  readBody(request: CallerRequest, sink: BodySink, content: boolean): void {
    if (request !== this.#request || !this.#body) return;
    this.#sink = sink;
    this.#payload = content ? [] : undefined;
    this.resumeBody();
  }

  pauseBody(): void {
    this.#bodyPaused = true;
    if (this.#awaited === Awaited.Tunnel) this.socket.pause();
  }

  resumeBody(): void {
    this.#bodyPaused = false;
    this.#take();
    if (!this.#bodyPaused) this.socket.resume();
  }

  closesAfter(request: CallerRequest): boolean {
    if (this.deps.isStopping) this.#closes = true;
    if (!this.#closes && this.deps.surplus > 0) {
      this.deps.surplus--;
      this.#closes = true;
    }
    // A long rest of a body is not worth reading.
    if (!this.#closes && !this.isBodyComplete(request)) {
      const { contentLength } = request.head;
      if (contentLength < 0 || contentLength > AHEAD_BYTES_MAX || request.head.expectsContinue) this.#closes = true;
    }
    return this.#closes;
  }

  closeAfterResponse(): void {
    this.#closes = true;
  }

  write(bytes: Buffer | string): boolean {
    return typeof bytes === 'string' ? this.socket.write(bytes, 'latin1') : this.socket.write(bytes);
  }

  complete(request: CallerRequest): void {
    if (request !== this.#request) return;
    request.isOver = true;
    this.deps.onResponse(request);
    if (this.#closes) return void this.#linger();
    if (this.#body) {
      // The rest of the body is read and discarded.
      this.#sinceMs = this.deps.nowMs;
      this.#sink = undefined;
      this.resumeBody();
    } else this.#next();
  }

  /** Goes on with the next request. */
  #next(): void {
    if (this.#closes) return void this.#linger();
    this.#request = undefined;
    this.#awaited = Awaited.Head;
    this.#sinceMs = this.deps.nowMs;
    if (this.#ahead) this.#take();
    // The rest can be a part of a head.
    if ((!this.#ahead || this.#takesHead) && this.socket.isPaused()) this.socket.resume();
  }

  /** Ends this side and gives the caller time to read: closing with unread input would destroy what was sent. */
  #linger(): void {
    this.#awaited = Awaited.Nothing;
    this.#ahead = undefined;
    this.#sinceMs = this.deps.nowMs;
    this.socket.end(() => {
      this.#sinceMs = this.deps.nowMs;
    });
    this.socket.resume();
  }

  /** Takes the connection over; the bytes that came already are delivered first. */
  tunnel(request: CallerRequest, sink: TunnelSink): void {
    request.isOver = true;
    this.deps.onResponse(request);
    this.#request = undefined;
    this.#tunnel = sink;
    this.#awaited = Awaited.Tunnel;
    const early = this.#ahead;
    this.#ahead = undefined;
    if (early) sink.onData(early);
    this.socket.resume();
  }

  end(): void {
    this.socket.end();
  }

  destroy(): void {
    this.socket.destroy();
  }

  reset(): void {
    this.socket.resetAndDestroy();
  }

  /** Closes the connection now if no request is open, else after its response. */
  closeWhenIdle(): void {
    this.#closes = true;
    if (!this.isIdle || this.#awaited === Awaited.Nothing) return;
    if (this.socket.writableLength > 0) this.#linger();
    else this.socket.destroy();
  }

  /** Enforces the limits of time. */
  tick(nowMs: number): void {
    const waitedMs = nowMs - this.#sinceMs;
    switch (this.#awaited) {
      case Awaited.Head: {
        const isIdle = (!this.#isFirst && this.#ahead === undefined) || this.socket.writableNeedDrain;
        if (isIdle) {
          if (waitedMs > KEEP_ALIVE_MS) this.socket.destroy();
        } else if (waitedMs > HEAD_TIMEOUT_MS) {
          if (this.#ahead === undefined) this.socket.destroy();
          else this.#refuseHead(TOO_SLOW);
        }
        break;
      }
      case Awaited.Body:
        if (waitedMs > (this.#request!.isOver ? UNWANTED_BODY_MS : REQUEST_TIMEOUT_MS)) this.socket.destroy();
        break;
      case Awaited.Nothing:
        if (waitedMs > (this.socket.writableFinished ? UNWANTED_BODY_MS : UNREAD_MS)) this.socket.destroy();
        break;
      default:
    }
  }

  /** The caller has ended its side: for a proxy it is gone. */
  #onEnd(): void {
    if (this.#tunnel) return void this.#tunnel.onEnd();
    this.socket.destroy();
  }

  #onClose(): void {
    const request = this.#request;
    this.#request = undefined;
    this.#awaited = Awaited.Nothing;
    this.#ahead = undefined;
    this.deps.onClosed(this);
    if (request && !request.isOver) {
      request.isOver = true;
      this.deps.onResponse(request);
      request.responder?.onCallerClose();
    }
    this.#tunnel?.onClose();
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
const TOO_SLOW: ErrorResponse = { code: 'request_timeout', detail: 'The request did not arrive in time.' };
