import { createServer, type Server, type Socket } from 'node:net';
import type { Logger } from '@latchkey/runtime';
import { peerOf } from '../http/index.js';
import { CallerConnection, type ConnectionDeps } from './caller-connection.js';
import { FIRST_REQUEST_MS, HEAD_TIMEOUT_MS } from './caller-limits.js';
import type { CallerRequest } from './caller-request.js';
import { Handshakes, type TlsCredentials } from './handshakes.js';
import { PROBED } from './socket-options.js';

export interface ServerDeps {
  onRequest(request: CallerRequest): void;
  onResponse(request: CallerRequest): void;
  /** Whether an address's X-Forwarded-* and X-Request-Id are trusted. */
  readonly isTrustedProxy: (ip: string) => boolean;
  readonly logger: Logger;
  readonly connectionsMax: number;
  /** With it the port speaks TLS, and nothing else. */
  readonly tls?: TlsCredentials | undefined;
  /** How long callers have to read what was written before a stop. Default 1 000. */
  readonly lastBytesMs?: number;
}

const TICK_MS = 500;

/** A listener that speaks HTTP/1.1 with callers. */
export class HttpServer implements ConnectionDeps {
  readonly server: Server;
  readonly #connections = new Set<CallerConnection>();
  readonly #handshakes: Handshakes | undefined;
  readonly #timer: NodeJS.Timeout;
  readonly #closed: Promise<void>;
  nowMs = performance.now();
  date = dateLine();
  isStopping = false;
  surplus = 0;
  #isDraining = false;

  constructor(private readonly deps: ServerDeps) {
    const handshakes = deps.tls && new Handshakes(deps.tls, (socket) => this.#onConnection(socket, true));
    this.#handshakes = handshakes;
    const onSocket = handshakes
      ? (socket: Socket) => handshakes.add(socket, this.nowMs)
      : (socket: Socket) => this.#onConnection(socket, false);
    this.server = createServer({ ...PROBED, noDelay: true, allowHalfOpen: true }, onSocket);
    this.server.maxConnections = deps.connectionsMax;
    // Node reports what failed to be accepted here: it concerns no connection that is open.
    this.server.once('listening', () => {
      this.server.on('error', (error) => deps.logger.error({ reason: error.message }, 'accepting a connection failed'));
    });
    this.#closed = new Promise((resolve) => this.server.once('close', resolve));
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    this.#timer.unref();
  }

  /** How many are open, those whose handshake is not complete included. */
  get connections(): number {
    return this.#connections.size + (this.#handshakes?.size ?? 0);
  }

  /** For connections that are accepted from now on; only with `tls`. */
  useCredentials(credentials: TlsCredentials): void {
    this.#handshakes?.use(credentials);
  }

  onRequest(request: CallerRequest): void {
    try {
      this.deps.onRequest(request);
    } catch (error) {
      this.deps.logger.error({ err: error, requestId: request.head.requestId }, 'a request failed');
      if (request.hasResponse) request.destroy();
      else request.refuse({ code: 'internal', detail: 'The gateway failed; see its log for this requestId.' });
    }
  }

  onResponse(request: CallerRequest): void {
    this.deps.onResponse(request);
  }

  onFault(error: unknown, requestId: string | undefined): void {
    this.deps.logger.error({ err: error, requestId }, 'a request failed; its connection was closed');
  }

  onClosed(connection: CallerConnection): void {
    this.#connections.delete(connection);
  }

  #onConnection(socket: Socket, encrypted: boolean): void {
    const connection = new CallerConnection(socket, peerOf(socket, this.deps.isTrustedProxy, encrypted), this);
    this.#connections.add(connection);
    if (this.#isDraining) connection.closeWhenIdle();
  }

  #tick(): void {
    this.nowMs = performance.now();
    this.date = dateLine();
    for (const connection of this.#connections) connection.tick(this.nowMs);
    this.#handshakes?.tick(this.nowMs, this.#isDraining ? FIRST_REQUEST_MS : HEAD_TIMEOUT_MS);
  }

  /** From now on each connection closes after its present or next response; it goes on accepting. */
  leave(): void {
    this.isStopping = true;
  }

  /** The same, and accepts nothing more. Resolves once no connection is open. */
  stopAccepting(): Promise<void> {
    this.isStopping = true;
    if (this.server.listening) this.server.close();
    return this.#closed;
  }

  /**
   * Accepts nothing more, closes idle connections, and the others after their present response. Resolves once none is open,
   * or after `ms`.
   */
  async drain(ms: number): Promise<void> {
    this.#isDraining = true;
    const closed = this.stopAccepting();
    for (const connection of [...this.#connections]) connection.closeWhenIdle();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, ms);
    });
    await Promise.race([closed, late]);
    clearTimeout(timer);
  }

  /** Closes all connections, those whose callers have still to read after `lastBytesMs`. */
  async close(): Promise<void> {
    if (this.server.listening || this.#isDraining) await this.drain(this.deps.lastBytesMs ?? 1_000);
    clearInterval(this.#timer);
    this.#handshakes?.close();
    for (const connection of [...this.#connections]) connection.destroy();
    if (this.#isDraining) await this.#closed;
  }
}

const dateLine = (): string => `date: ${new Date().toUTCString()}\r\n`;
