import { type Origin, type ResponseSink, UpstreamConnection } from './upstream-connection.js';

export interface PoolOptions {
  /** Longest time to connect. Default 5 000. */
  readonly connectTimeoutMs?: number;
  /** How long an idle connection stays open. Default 4 000: less than the keep-alive of most servers. */
  readonly keepAliveMs?: number;
  /** Most idle connections. Default 1 000. */
  readonly idleMax?: number;
}

/** Connections to one upstream; the one used last is used first. */
export class UpstreamPool {
  readonly origin: Origin;
  readonly #idle: UpstreamConnection[] = [];
  readonly #open = new Set<UpstreamConnection>();
  readonly #connectTimeoutMs: number;
  readonly #keepAliveMs: number;
  readonly #idleMax: number;
  #nowMs = performance.now();

  constructor(url: URL, options: PoolOptions = {}) {
    const secure = url.protocol === 'https:';
    this.origin = {
      secure,
      host: url.hostname.replace(/^\[|\]$/g, ''),
      port: Number(url.port || (secure ? 443 : 80)),
      authority: url.host,
    };
    this.#connectTimeoutMs = options.connectTimeoutMs ?? 5_000;
    this.#keepAliveMs = options.keepAliveMs ?? 4_000;
    this.#idleMax = options.idleMax ?? 1_000;
  }

  /**
   * Sends a request over an idle connection, or a new one.
   * @param fresh true: over a new one, because an idle one can be stale
   */
  send(sink: ResponseSink, bytes: string | Buffer, complete: boolean, fresh: boolean): UpstreamConnection {
    const connection = (fresh ? undefined : this.#takeIdle()) ?? this.#connect();
    connection.send(sink, bytes, complete);
    return connection;
  }

  #takeIdle(): UpstreamConnection | undefined {
    for (;;) {
      const connection = this.#idle.pop();
      if (!connection || connection.isOpen) return connection;
    }
  }

  #connect(): UpstreamConnection {
    const connection = new UpstreamConnection(this.origin, this.#nowMs, this.#onIdle, this.#onClosed);
    this.#open.add(connection);
    return connection;
  }

  readonly #onIdle = (connection: UpstreamConnection): void => {
    if (this.#idle.length >= this.#idleMax) return void connection.destroy();
    connection.sinceMs = this.#nowMs;
    this.#idle.push(connection);
  };

  readonly #onClosed = (connection: UpstreamConnection): void => {
    this.#open.delete(connection);
    const at = this.#idle.lastIndexOf(connection);
    if (at >= 0) this.#idle.splice(at, 1);
  };

  /** Closes what was idle for too long, and gives up what does not connect. */
  tick(nowMs: number): void {
    this.#nowMs = nowMs;
    for (const connection of this.#open) {
      if (!connection.connected && nowMs - connection.sinceMs > this.#connectTimeoutMs)
        connection.fail({ kind: 'connect timeout', reason: `no connection within ${this.#connectTimeoutMs} ms` });
    }
    for (const connection of this.#idle) {
      const limitMs = connection.keepAliveMs < 0 ? this.#keepAliveMs : connection.keepAliveMs;
      if (nowMs - connection.sinceMs > limitMs) connection.destroy();
    }
  }

  close(): void {
    for (const connection of [...this.#open]) connection.destroy();
  }
}

/** A pool for each origin, created at the first use. */
export class UpstreamPools {
  readonly #byOrigin = new Map<string, UpstreamPool>();
  readonly #timer: NodeJS.Timeout;

  constructor(private readonly options: PoolOptions = {}) {
    this.#timer = setInterval(() => {
      const nowMs = performance.now();
      for (const pool of this.#byOrigin.values()) pool.tick(nowMs);
    }, TICK_MS);
    this.#timer.unref();
  }

  get(origin: string): UpstreamPool {
    let pool = this.#byOrigin.get(origin);
    if (!pool) {
      pool = new UpstreamPool(new URL(origin), this.options);
      this.#byOrigin.set(origin, pool);
    }
    return pool;
  }

  close(): void {
    clearInterval(this.#timer);
    for (const pool of this.#byOrigin.values()) pool.close();
    this.#byOrigin.clear();
  }
}

const TICK_MS = 250;
