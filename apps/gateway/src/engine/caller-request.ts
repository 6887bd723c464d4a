import { ERRORS, REQUEST_ID_HEADER } from '@latchkey/contracts';
import { type ErrorResponse, type Peer, type RequestHead, renderError } from '../http/index.js';

/** Takes a request's body. */
export interface BodySink {
  /** @param bytes as they came, or without chunk framing; can be kept */
  onBody(bytes: Buffer): void;
  /** @param tail to be written behind the body */
  onBodyEnd(tail: string): void;
  /** The framing is malformed: the connection ends after a response. */
  onBodyMalformed(): void;
}

/** Told of a caller's connection while it is responded to. */
export interface Responder {
  /** The connection ended before the response was complete. */
  onCallerClose(): void;
  /** More of the response can be written. */
  onCallerDrain(): void;
  /** The rest of the request has not come in time: this error is the response, and one that has begun is broken off. */
  onTimeout(error: ErrorResponse): void;
}

/** How the end of a response's body is marked. */
export type ResponseFraming = 'none' | 'length' | 'chunked' | 'close';

/** The connection that a request came over. */
export interface Connection {
  readonly peer: Peer;
  /** A Date line (RFC 9110 section 6.6.1). */
  readonly date: string;
  /** The caller has not read what was written. */
  readonly isStalled: boolean;
  isBodyComplete(request: CallerRequest): boolean;
  readBody(request: CallerRequest, sink: BodySink, content: boolean): void;
  /** Stops reading from the caller, also what comes over a tunnel. */
  pauseBody(): void;
  resumeBody(): void;
  /** Whether it closes after the response to a request. */
  closesAfter(request: CallerRequest): boolean;
  closeAfterResponse(): void;
  /** @returns false when the caller has not read what was written */
  write(bytes: Buffer | string): boolean;
  /** The response to the present request is complete. */
  complete(request: CallerRequest): void;
  tunnel(request: CallerRequest, sink: TunnelSink): void;
  /** Ends its side after what was written. */
  end(): void;
  destroy(): void;
  /** Ends so that the caller sees a fault. */
  reset(): void;
}

/** One request of a caller, and the way to respond to it. */
export class CallerRequest {
  readonly startedAtMs = performance.now();
  /** The route's name, for the metrics. */
  route = '-';
  /** Of the response; 0 until its head is written. */
  status = 0;
  /** The response is complete, or its connection is gone. */
  isOver = false;
  /** Told of the connection while the response is not complete. */
  responder: Responder | undefined;
  /** Only a reset shows that the response is not whole. */
  #endsWithConnection = false;

  constructor(
    readonly head: RequestHead,
    private readonly connection: Connection,
  ) {}

  get peerIp(): string {
    return this.connection.peer.ip;
  }

  /** All of the request has arrived. */
  get isComplete(): boolean {
    return this.connection.isBodyComplete(this);
  }

  /** The caller has not read what was written. */
  get isStalled(): boolean {
    return this.connection.isStalled;
  }

  get hasResponse(): boolean {
    return this.status !== 0;
  }

  /**
   * Reads the body as it arrives.
   * @param content without chunk framing
   */
  readBody(sink: BodySink, content = false): void {
    if (!this.isOver) this.connection.readBody(this, sink, content);
  }

  pauseBody(): void {
    if (!this.isOver) this.connection.pauseBody();
  }

  resumeBody(): void {
    if (!this.isOver) this.connection.resumeBody();
  }

  /** An interim response (RFC 9110 section 15.2); HTTP/1.0 has none. */
  interim(status: number, reason: string, lines: string): void {
    if (this.isOver || this.hasResponse || this.head.minorVersion === 0) return;
    this.connection.write(`HTTP/1.1 ${status} ${reason}\r\n${lines}\r\n`);
  }

  /**
   * Begins a response: every final one, and 101. Its `x-request-id` is written here.
   * @param lines of the other fields, without framing, connection and date
   * @param length bytes of the body, written as Content-Length; negative: none is written
   * @param body bytes of the body in Latin-1, written with the head
   */
  begin(
    status: number,
    reason: string,
    lines: string,
    framing: ResponseFraming,
    length: number,
    hasDate: boolean,
    body: string,
  ): boolean {
    this.status = status;
    this.#endsWithConnection = framing === 'close';
    if (framing === 'close') this.connection.closeAfterResponse();
    const { connection } = this;
    const date = hasDate ? '' : connection.date;
    const framed =
      framing === 'chunked' ? 'transfer-encoding: chunked\r\n' : length >= 0 ? `content-length: ${length}\r\n` : '';
    const ending = status !== 101 && connection.closesAfter(this) ? CLOSE : '';
    const id = `${REQUEST_ID_HEADER}: ${this.head.requestId}\r\n`;
    return connection.write(`HTTP/1.1 ${status} ${reason}\r\n${lines}${id}${framed}${date}${ending}\r\n${body}`);
  }

  /** Writes bytes of the body; false: wait for `onCallerDrain`. */
  write(bytes: Buffer | string): boolean {
    return this.isOver || this.connection.write(bytes);
  }

  /** The response is complete. */
  end(): void {
    if (!this.isOver) this.connection.complete(this);
  }

  /** A complete response. */
  respond(status: number, reason: string, lines: string, body: string | Buffer = ''): void {
    if (this.isOver || this.hasResponse) return;
    const bytes = typeof body === 'string' ? Buffer.from(body) : body;
    const isBare = status === 304 || status === 204;
    const hasBody = this.head.method !== 'HEAD' && !isBare;
    const together = hasBody && bytes.length <= COPIED_BYTES_MAX;
    const text = together ? bytes.toString('latin1') : '';
    this.begin(status, reason, lines, 'length', isBare ? -1 : bytes.length, false, text);
    if (hasBody && !together) this.write(bytes);
    this.end();
  }

  /** An error response; nothing when a response has begun. */
  refuse(error: ErrorResponse, extra = ''): void {
    const { status, headers, body } = renderError(error, this.head.requestId);
    let lines = extra;
    for (const name in headers) if (!WRITTEN.has(name)) lines += `${name}: ${headers[name]}\r\n`;
    this.respond(status, ERRORS[error.code].title, lines, body);
  }

  /** The connection closes after the response: what follows the request cannot be read. */
  closeAfter(): void {
    if (!this.isOver) this.connection.closeAfterResponse();
  }

  /** Cuts the connection: what was sent of the response is all there is, and the caller can see that. */
  destroy(): void {
    if (this.isOver) return;
    if (this.#endsWithConnection) this.connection.reset();
    else this.connection.destroy();
  }

  /** Takes the connection over, for another protocol. */
  tunnel(sink: TunnelSink): void {
    if (!this.isOver) this.connection.tunnel(this, sink);
  }

  /** False: wait for `onDrain` of the tunnel. */
  writeTunnel(bytes: Buffer): boolean {
    return this.connection.write(bytes);
  }

  /** Ends this side of a tunnel, after what was written. */
  endTunnel(): void {
    this.connection.end();
  }

  destroyTunnel(): void {
    this.connection.destroy();
  }

  pause(): void {
    this.connection.pauseBody();
  }

  resume(): void {
    this.connection.resumeBody();
  }
}

/** Takes what a caller sends over a tunnel. */
export interface TunnelSink {
  onData(bytes: Buffer): void;
  /** The caller has ended its side. */
  onEnd(): void;
  onDrain(): void;
  onClose(): void;
}

/** Fields that `begin` writes. */
const WRITTEN = new Set(['content-length', REQUEST_ID_HEADER]);
const CLOSE = 'connection: close\r\n';
/** Longest body that is written together with its head. */
export const COPIED_BYTES_MAX = 16_384;
