import type { Socket } from 'node:net';
import {
  type BodyReader,
  ChunkedBody,
  type ErrorResponse,
  LengthBody,
  type Peer,
  type RequestHead,
} from '../http/index.js';
import { Backlog } from './backlog.js';
import {
  AHEAD_BYTES_MAX,
  AHEAD_MS,
  FIRST_REQUEST_MS,
  HEAD_TIMEOUT_MS,
  KEEP_ALIVE_MS,
  REQUEST_TIMEOUT_MS,
  UNREAD_MS,
  UNWANTED_BODY_MS,
} from './caller-limits.js';
import { type BodySink, CallerRequest, type Connection, type TunnelSink } from './caller-request.js';
import { HeadReader } from './head-reader.js';

/** What the connections of a listener share. */
export interface ConnectionDeps {
  onRequest(request: CallerRequest): void;
  /** A response was completed or broken off. */
  onResponse(request: CallerRequest): void;
  onClosed(connection: CallerConnection): void;
  /** What takes a body or a drain has thrown: only its connection ends. */
  onFault(error: unknown, requestId: string | undefined): void;
  /** A Date line (RFC 9110 section 6.6.1), renewed every second. */
  readonly date: string;
  /** The listener stops: connections close after their present response. */
  readonly isStopping: boolean;
  /** So many connections close after their next response, because other processes are less busy. */
  surplus: number;
  /** By the clock of the listener's tick. */
  readonly nowMs: number;
}

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
  readonly #ahead = new Backlog();
  readonly #heads: HeadReader;
  #closes = false;
  /** What comes is discarded: the connection closes after the present response. */
  #discards = false;
  #pausedAtMs = 0;
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
    this.#heads = new HeadReader(peer);
    socket.on('data', (chunk: Buffer) => {
      try {
        this.#onData(chunk);
      } catch (error) {
        this.#onFault(error);
      }
    });
    socket.on('drain', () => {
      try {
        this.#onDrain();
      } catch (error) {
        this.#onFault(error);
      }
    });
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
      default: {
        if (this.#discards) return;
        const ahead = this.#ahead;
        // The time for a head after an idle connection begins with its first byte.
        if (!ahead.bytes && this.#awaited === Awaited.Head && !this.#isFirst) this.#sinceMs = this.deps.nowMs;
        ahead.add(chunk);
        this.#take();
        if (ahead.bytes && !this.#takesHead && ahead.bytes.length > AHEAD_BYTES_MAX) {
          this.#pausedAtMs = this.deps.nowMs;
          this.socket.pause();
        }
      }
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
    for (let { bytes } = this.#ahead; bytes; bytes = this.#ahead.bytes) {
      if (this.#takesHead) this.#takeHead(bytes);
      else if (this.#awaited === Awaited.Body && !this.#bodyPaused) this.#takeBody(bytes);
      if (this.#ahead.bytes === bytes) break;
    }
    this.#isTaking = false;
  }

  #takeHead(bytes: Buffer): void {
    const head = this.#heads.read(bytes);
    const { error, taken } = this.#heads;
    if (error) return void this.#refuse(head!, error);
    this.#ahead.dropTo(taken);
    if (!head) return;
    const request = new CallerRequest(head, this);
    this.#request = request;
    this.#isFirst = false;
    this.#closes ||= head.closes || this.deps.isStopping;
    this.#sinceMs = this.deps.nowMs;
    this.#body = head.chunked
      ? new ChunkedBody()
      : head.contentLength > 0
        ? new LengthBody(head.contentLength)
        : undefined;
    this.#bodyPaused = true;
    this.#awaited = this.#body ? Awaited.Body : Awaited.Response;
    this.deps.onRequest(request);
  }

  /** Where such a request ends is ambiguous, so nothing after it is read. */
  #refuse(head: RequestHead, error: ErrorResponse): void {
    const request = new CallerRequest(head, this);
    this.#request = request;
    this.#isFirst = false;
    this.#closes = true;
    this.#ahead.clear();
    this.#awaited = Awaited.Nothing;
    request.refuse(error);
  }

  #takeBody(bytes: Buffer): void {
    const body = this.#body!;
    const payload = this.#payload;
    const end = body.read(bytes, 0, payload);
    if (end < 0) {
      this.#closes = true;
      this.#ahead.clear();
      this.#awaited = Awaited.Nothing;
      return void this.#sink?.onBodyMalformed();
    }
    this.#ahead.dropTo(body.end);
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
    if (this.#ahead.bytes) this.#take();
    // The rest can be a part of a head.
    if ((!this.#ahead.bytes || this.#takesHead) && this.socket.isPaused()) this.socket.resume();
  }

  /** Ends this side and gives the caller time to read: closing with unread input would destroy what was sent. */
  #linger(): void {
    this.#awaited = Awaited.Nothing;
    this.#ahead.clear();
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
    this.socket.resume();
    const early = this.#ahead.bytes;
    this.#ahead.clear();
    // Its sink can pause it.
    if (early) sink.onData(early);
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

  /**
   * Closes the connection now if no request is open, else after its response. One whose head has begun is awaited, and that
   * of a new connection for {@link FIRST_REQUEST_MS}.
   */
  closeWhenIdle(): void {
    this.#closes = true;
    if (!this.isIdle || this.#awaited === Awaited.Nothing) return;
    const isNew = this.#isFirst && this.deps.nowMs - this.#sinceMs < FIRST_REQUEST_MS;
    if (isNew || (this.#ahead.bytes && this.#takesHead)) return;
    this.#closeIdle();
  }

  #closeIdle(): void {
    // An end of TLS without close_notify is a fault.
    if (this.socket.writableLength > 0 || this.peer.encrypted) this.#linger();
    else this.socket.destroy();
  }

  /** Enforces the limits of time. */
  tick(nowMs: number): void {
    const waitedMs = nowMs - this.#sinceMs;
    const { socket } = this;
    switch (this.#awaited) {
      case Awaited.Head: {
        const hasBegun = this.#ahead.bytes !== undefined;
        const isIdle = (!this.#isFirst && !hasBegun) || socket.writableNeedDrain;
        if (isIdle) {
          if (waitedMs > (socket.writableNeedDrain ? UNREAD_MS : KEEP_ALIVE_MS)) socket.destroy();
        } else if (this.#closes && !hasBegun && waitedMs >= FIRST_REQUEST_MS) this.#closeIdle();
        else if (waitedMs > HEAD_TIMEOUT_MS) {
          if (hasBegun) this.#refuse(this.#heads.refuse(TOO_SLOW), TOO_SLOW);
          else socket.destroy();
        }
        break;
      }
      case Awaited.Body:
        if (this.#request!.isOver) {
          if (waitedMs > UNWANTED_BODY_MS) this.#linger();
        } else if (waitedMs > REQUEST_TIMEOUT_MS) this.#giveUp(this.#request!);
        break;
      case Awaited.Response:
        if (socket.isPaused() && nowMs - this.#pausedAtMs > AHEAD_MS) this.#discard();
        break;
      case Awaited.Nothing:
        if (socket.writableFinished) {
          if (waitedMs > UNWANTED_BODY_MS) socket.destroy();
        } else if (waitedMs > UNREAD_MS) socket.resetAndDestroy();
        break;
      default:
    }
  }

  /** The rest of a request has not come in time. */
  #giveUp(request: CallerRequest): void {
    this.#closes = true;
    if (request.responder) request.responder.onTimeout(TOO_SLOW);
    else request.refuse(TOO_SLOW);
  }

  /** The requests that came ahead are not answered, so that the connection is read and its end noticed. */
  #discard(): void {
    this.#closes = true;
    this.#discards = true;
    this.#ahead.clear();
    this.socket.resume();
  }

  /** The caller has ended its side: for a proxy it is gone. */
  #onEnd(): void {
    if (this.#tunnel) return void this.#tunnel.onEnd();
    // It can still read the end of its last response.
    if (this.#awaited === Awaited.Nothing && !this.socket.writableFinished) return;
    if ((!this.#request || this.#request.isOver) && this.socket.writableLength > 0) this.#linger();
    else this.socket.destroy();
  }

  #onFault(error: unknown): void {
    const requestId = this.#request?.head.requestId;
    this.socket.resetAndDestroy();
    this.deps.onFault(error, requestId);
  }

  #onClose(): void {
    const request = this.#request;
    this.#request = undefined;
    this.#awaited = Awaited.Nothing;
    this.#ahead.clear();
    this.deps.onClosed(this);
    if (request && !request.isOver) {
      request.isOver = true;
      this.deps.onResponse(request);
      request.responder?.onCallerClose();
    }
    this.#tunnel?.onClose();
  }
}

const TOO_SLOW: ErrorResponse = { code: 'request_timeout', detail: 'The request did not arrive in time.' };
