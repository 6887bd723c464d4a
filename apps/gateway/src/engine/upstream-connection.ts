import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls, type SecureContext } from 'node:tls';
import {
  type BodyReader,
  ChunkedBody,
  HeadScan,
  LengthBody,
  ResponseHead,
  type ResponsePolicy,
  UntilCloseBody,
} from '../http/index.js';
import { Backlog } from './backlog.js';
import { sharedLookup } from './lookup.js';
import { PROBED } from './socket-options.js';

/** Where an upstream is. */
export interface Origin {
  readonly secure: boolean;
  readonly host: string;
  readonly port: number;
  /** The Host field of requests. */
  readonly authority: string;
  /** Of https. Without it the system's authorities, and no certificate of the own. */
  readonly secureContext: SecureContext | undefined;
  /** Of https: asked for, and checked against the certificate. Undefined for an address, which is checked itself. */
  readonly serverName: string | undefined;
}

export type FailureKind =
  /** No connection could be opened. */
  | 'unreachable'
  /** Opening a connection took too long. */
  | 'connect timeout'
  /** The connection ended before the response did. */
  | 'lost'
  /** The response is not HTTP/1.1. */
  | 'malformed'
  /** The gateway itself is at fault. */
  | 'internal';

export interface UpstreamFailure {
  readonly kind: FailureKind;
  readonly reason: string;
}

/** Takes the bytes of a body or of a tunnel. A buffer is valid only during the call. */
export interface RawSink {
  onData(buffer: Buffer, start: number, end: number): void;
  /** @param tail to be written behind the body, unless `onResponse` had it; a tunnel's upstream has ended its side */
  onEnd(tail: string): void;
  onFailure(failure: UpstreamFailure): void;
  /** More of the request can be written. */
  onDrain(): void;
}

/** Takes the response to one request. */
export interface ResponseSink extends RawSink {
  /** Of the request. */
  readonly method: string;
  readonly policy: ResponsePolicy;
  /** Asked once the head is read: the content without its framing, instead of the bytes as they came. */
  wantsContent(head: ResponseHead): boolean;
  /** An interim response (RFC 9110 section 15.2), never 101. */
  onInterim(head: ResponseHead): void;
  /**
   * The head, with the bytes of the body that came with it.
   * @param tail to be written behind them, when the body is complete with them; undefined: more follows
   */
  onResponse(head: ResponseHead, buffer: Buffer, start: number, end: number, tail: string | undefined): void;
  /** The connection speaks another protocol from now on: `handOver` must be called, or `destroy`. */
  onUpgrade(head: ResponseHead, buffer: Buffer, start: number, end: number): void;
}

/** Whatever the upstream says. */
const KEEP_ALIVE_MAX_MS = 600_000;
export const RESPONSE_HEAD_BYTES_MAX = 65_536;
/** More interim responses than this to one request are an attack. */
const INTERIM_MAX = 100;
const NOTHING = Buffer.alloc(0);
/** For all heads that come as a whole: nearly all. */
const shared = new HeadScan();

/** All connections read into this buffer, one after the other: each call takes what it needs before it returns. */
const input = Buffer.allocUnsafeSlow(65_536);

/** One connection to an upstream: one request at a time (RFC 9112 section 9.3). */
export class UpstreamConnection {
  readonly #socket: Socket;
  #sink: ResponseSink | undefined;
  /** A head that has come in part, and how far it was scanned. */
  readonly #pending = new Backlog();
  #partial: HeadScan | undefined;
  #body: BodyReader | undefined;
  #payload: number[] | undefined;
  /** Set while it carries another protocol. */
  #tunnel: RawSink | undefined;
  #reading = true;
  #keepsOpen = true;
  #interim = 0;
  #requestComplete = false;
  #responded = false;
  #failure: UpstreamFailure | undefined;
  readonly #queue: Buffer[] = [];
  /** Has carried a request before the present one. */
  reused = false;
  /** Has brought bytes since the present request was sent. */
  hasHeard = false;
  /** Before, nothing that was written has left. */
  connected = false;
  /** By the clock of the pool: when it was opened, or became idle. */
  sinceMs: number;
  /** By the same clock: until when it can take another request. */
  keptUntilMs = Number.POSITIVE_INFINITY;
  /** How long it can be idle, by the upstream's own words; -1 when it does not say. */
  keepAliveMs = -1;

  get isOpen(): boolean {
    return !this.#socket.destroyed;
  }

  /** @param onIdle called when it can carry another request */
  constructor(
    origin: Origin,
    nowMs: number,
    private readonly onIdle: (connection: UpstreamConnection) => void,
    private readonly onClosed: (connection: UpstreamConnection) => void,
  ) {
    this.sinceMs = nowMs;
    const onread = {
      buffer: input,
      callback: (size: number, buffer: Uint8Array) => this.#onRead(size, buffer as Buffer),
    };
    const { host, port } = origin;
    const common = { ...PROBED, host, port, lookup: lookupOnce, onread, noDelay: true, allowHalfOpen: true };
    this.#socket = origin.secure
      ? connectTls({ ...common, ALPNProtocols: ['http/1.1'], rejectUnauthorized: true, ...secureOptions(origin) })
      : connectTcp(common);
    this.#socket.on(origin.secure ? 'secureConnect' : 'connect', () => {
      this.connected = true;
      if (this.#queue.length > 0) setImmediate(afterInput, this.#flush);
    });
    this.#socket.on('drain', () => (this.#tunnel ?? this.#sink)?.onDrain());
    this.#socket.on('end', () => this.#onEnd());
    this.#socket.on('error', (error: NodeJS.ErrnoException) => {
      this.#failure ??= {
        kind: this.connected ? 'lost' : error.code === 'ETIMEDOUT' ? 'connect timeout' : 'unreachable',
        reason: error.message,
      };
    });
    this.#socket.on('close', () => this.#onClose());
  }

  /**
   * Sends a request.
   * @param bytes the head, in Latin-1, with a body that is already there
   * @param complete false when a body follows by `write`
   */
  send(sink: ResponseSink, bytes: string | Buffer, complete: boolean): void {
    this.#sink = sink;
    this.#requestComplete = complete;
    this.#responded = false;
    this.hasHeard = false;
    this.#interim = 0;
    if (typeof bytes === 'string') this.#socket.write(bytes, 'latin1');
    else this.#socket.write(bytes);
  }

  /**
   * Writes bytes of the request's body, or of a tunnel. Those of a body leave behind the next look for input, and at once
   * then: an upstream that refuses an upload and closes is heard first, because the error of a write destroys what it said.
   * @returns false when `onDrain` is to be awaited
   */
  write(bytes: Buffer): boolean {
    if (this.#tunnel) return this.#socket.write(bytes);
    if (this.#queue.push(bytes) === 1) setImmediate(afterInput, this.#flush);
    return false;
  }

  /** From now on another sink takes what comes: after a switch of protocols. */
  handOver(sink: RawSink): void {
    this.#sink = undefined;
    this.#tunnel = sink;
  }

  /** The request's body is complete, or a tunnel's caller has ended its side. */
  finish(tail: string): void {
    if (this.#tunnel) return void this.#socket.end();
    this.#requestComplete = true;
    if (tail !== '') this.write(Buffer.from(tail, 'latin1'));
  }

  readonly #flush = (): void => {
    if (this.#queue.length === 0 || this.#socket.destroyed || !this.connected) return;
    const bytes = this.#queue.length === 1 ? this.#queue[0]! : Buffer.concat(this.#queue);
    this.#queue.length = 0;
    if (this.#socket.write(bytes)) this.#sink?.onDrain();
  };

  /** What was written behind the bytes of `send`, when it was never connected. */
  get unsent(): Buffer {
    return Buffer.concat(this.#queue);
  }

  pause(): void {
    this.#reading = false;
    this.#socket.pause();
  }

  resume(): void {
    if (this.#reading) return;
    this.#reading = true;
    this.#socket.resume();
  }

  destroy(): void {
    this.#sink = undefined;
    this.#tunnel = undefined;
    this.#socket.destroy();
  }

  /** Ends with a failure that the pool has found, such as a timeout. */
  fail(failure: UpstreamFailure): void {
    this.#failure ??= failure;
    this.#socket.destroy();
  }

  #onRead(size: number, buffer: Buffer): boolean {
    this.hasHeard = true;
    const bytes = buffer.subarray(0, size);
    try {
      if (this.#pending.bytes) {
        this.#pending.add(bytes);
        this.#take(this.#pending.bytes);
      } else this.#take(bytes);
    } catch (error) {
      // Only this exchange ends with it.
      this.#fail({ kind: 'internal', reason: (error as Error).stack ?? String(error) });
    }
    return this.#reading;
  }

  #take(buffer: Buffer): void {
    let at = 0;
    while (this.#sink && !this.#responded) {
      const partial = this.#partial;
      const end = partial ? partial.resume(buffer) : shared.scan(buffer, at);
      if (end < 0)
        return void this.#malformed('the head contains a character that is not allowed there, or too many fields');
      if ((end || buffer.length) - at > RESPONSE_HEAD_BYTES_MAX) return void this.#malformed('the head is too long');
      if (end === 0) return void (partial ?? this.#keep(buffer, at));
      const text = buffer.toString('latin1', at, end - 2);
      const head = ResponseHead.read(text, partial ?? shared, this.#sink.method, this.#sink.policy);
      if ('malformed' in head) return void this.#malformed(head.malformed);
      at = end;
      this.#partial = undefined;
      if (head.status === 101 || head.status >= 200) {
        this.#pending.clear();
        if (head.status === 101) return void this.#upgrade(head, buffer, at);
        return void this.#begin(head, buffer, at);
      }
      if (++this.#interim > INTERIM_MAX) return void this.#malformed(`more than ${INTERIM_MAX} interim responses`);
      this.#sink.onInterim(head);
    }
    if (at < buffer.length) this.#read(buffer, at);
  }

  /** Keeps the beginning of a head, and scans it once more to go on from there. */
  #keep(buffer: Buffer, at: number): void {
    const pending = this.#pending;
    if (buffer === pending.bytes) pending.dropTo(at);
    else pending.add(Buffer.from(buffer.subarray(at)));
    if (!pending.bytes) return;
    this.#partial = new HeadScan();
    this.#partial.scan(pending.bytes, 0);
  }

  /** The head of the final response. */
  #begin(head: ResponseHead, buffer: Buffer, at: number): void {
    const sink = this.#sink!;
    this.#responded = true;
    this.#keepsOpen = head.keepsOpen;
    if (head.keepAliveS >= 0)
      this.keepAliveMs = Math.min(Math.max(0, head.keepAliveS * 1000 - 1_000), KEEP_ALIVE_MAX_MS);
    if (head.framing === 'none') {
      sink.onResponse(head, NOTHING, 0, 0, '');
      return void this.#complete('', at < buffer.length);
    }
    const body =
      head.framing === 'length'
        ? new LengthBody(head.contentLength)
        : head.framing === 'chunked'
          ? new ChunkedBody()
          : new UntilCloseBody();
    this.#body = body;
    this.#payload = undefined;
    if (sink.wantsContent(head)) {
      this.#payload = [];
      sink.onResponse(head, NOTHING, 0, 0, undefined);
      return void this.#read(buffer, at);
    }
    const end = body.read(buffer, at);
    if (end < 0) return void this.#malformed('the chunks are not well-formed');
    sink.onResponse(head, buffer, at, end, body.complete ? body.tail : undefined);
    if (body.complete) this.#complete('', body.end < buffer.length);
  }

  /** Bytes behind the head. */
  #read(buffer: Buffer, at: number): void {
    if (this.#tunnel) return void this.#tunnel.onData(buffer, at, buffer.length);
    const sink = this.#sink;
    if (!sink) return void this.#socket.destroy(); // Bytes that no request asked for.
    const body = this.#body!;
    const payload = this.#payload;
    const end = body.read(buffer, at, payload);
    if (end < 0) return void this.#malformed('the chunks are not well-formed');
    if (payload) {
      for (let i = 0; i < payload.length; i += 2) sink.onData(buffer, payload[i]!, payload[i + 1]!);
      payload.length = 0;
    } else if (end > at) sink.onData(buffer, at, end);
    if (body.complete) this.#complete(payload ? '' : body.tail, body.end < buffer.length);
  }

  #complete(tail: string, hasExcess: boolean): void {
    const sink = this.#sink;
    this.#sink = undefined;
    this.#body = undefined;
    this.reused = true;
    const isSent = this.#requestComplete && this.#queue.length === 0 && this.#socket.writableLength === 0;
    const reusable = this.#keepsOpen && isSent && !hasExcess;
    if (reusable && !this.#socket.destroyed) {
      // The sink can have paused it.
      this.resume();
      this.onIdle(this);
    } else this.#socket.destroy();
    sink?.onEnd(tail);
  }

  #upgrade(head: ResponseHead, buffer: Buffer, at: number): void {
    this.#responded = true;
    this.#sink!.onUpgrade(head, buffer, at, buffer.length);
  }

  #malformed(reason: string): void {
    this.#fail({ kind: 'malformed', reason });
  }

  #fail(failure: UpstreamFailure): void {
    this.fail(failure);
    this.#report();
  }

  /** The upstream has ended its side. */
  #onEnd(): void {
    if (this.#tunnel) return void this.#tunnel.onEnd('');
    const sink = this.#sink;
    if (sink && this.#body instanceof UntilCloseBody) {
      this.#sink = undefined;
      this.#socket.destroy();
      return void sink.onEnd('');
    }
    this.#failure ??= { kind: 'lost', reason: 'the upstream closed the connection before its response was complete' };
    this.#socket.destroy();
  }

  #onClose(): void {
    this.onClosed(this);
    this.#report();
  }

  #report(): void {
    const sink = this.#tunnel ?? this.#sink;
    this.#sink = undefined;
    this.#tunnel = undefined;
    sink?.onFailure(this.#failure ?? { kind: 'lost', reason: 'the connection was closed' });
  }
}

/** An immediate runs after the input that was there before it; a second one after input that has come since. */
const afterInput = (flush: () => void): void => void setImmediate(flush);

const lookupOnce = sharedLookup();

const secureOptions = ({ secureContext, serverName }: Origin) => ({
  ...(secureContext && { secureContext }),
  ...(serverName !== undefined && { servername: serverName }),
});
