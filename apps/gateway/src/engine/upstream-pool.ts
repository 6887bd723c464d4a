import type { HealthCheckSettings, UpstreamTls } from '../routes/index.js';
import { HealthCheck } from './health-check.js';
import { type Origin, type ResponseSink, UpstreamConnection } from './upstream-connection.js';
import type { UpstreamHealth } from './upstream-health.js';

export interface PoolOptions {
  /** Longest time to connect. Default 5 000. */
  readonly connectTimeoutMs?: number;
  /**
   * Longest time that an idle connection stays open. Without it 4 000, less than the keep-alive of most servers, or what the
   * upstream says.
   */
  readonly keepAliveMs?: number | undefined;
  readonly tls?: UpstreamTls | undefined;
  readonly health?: UpstreamHealth | undefined;
  /** Needs `health`. */
  readonly healthCheck?: HealthCheckSettings | undefined;
  /** Most idle connections. Default 1 000. */
  readonly idleMax?: number;
}

/** Connections to one upstream; the one used last is used first. */
export class UpstreamPool {
  readonly origin: Origin;
  /** Of an upstream that is one of several. */
  readonly health: UpstreamHealth | undefined;
  readonly #check: HealthCheck | undefined;
  readonly #idle: UpstreamConnection[] = [];
  readonly #open = new Set<UpstreamConnection>();
  readonly #connectTimeoutMs: number;
  readonly #keepAliveMs: number | undefined;
  #idleMax: number;
  readonly #isNamed: boolean;
  #isRetired = false;
  #nowMs = performance.now();

  constructor(url: URL, options: PoolOptions = {}) {
    const secure = url.protocol === 'https:';
    const host = url.hostname.replace(/^\[|\]$/g, '');
    this.origin = {
      secure,
      host,
      port: Number(url.port || (secure ? 443 : 80)),
      authority: url.host,
      secureContext: options.tls?.context,
      serverName: options.tls?.serverName ?? (isAddress(host) ? undefined : host),
    };
    this.health = options.health;
    if (options.health && options.healthCheck) this.#check = new HealthCheck(this, options.health, options.healthCheck);
    this.#isNamed = !isAddress(host);
    this.#connectTimeoutMs = options.connectTimeoutMs ?? 5_000;
    this.#keepAliveMs = options.keepAliveMs;
    this.#idleMax = options.keepAliveMs === 0 ? 0 : (options.idleMax ?? 1_000);
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
    if (this.#isNamed) connection.keptUntilMs = this.#nowMs + LIFE_MS * (0.9 + 0.2 * Math.random());
    this.#open.add(connection);
    return connection;
  }

  readonly #onIdle = (connection: UpstreamConnection): void => {
    if (this.#idle.length >= this.#idleMax || this.#nowMs > connection.keptUntilMs) return void connection.destroy();
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
    if (!this.#isRetired) {
      this.health?.tick(nowMs);
      this.#check?.tick(nowMs);
    }
    for (const connection of this.#open) {
      if (!connection.connected && nowMs - connection.sinceMs > this.#connectTimeoutMs)
        connection.fail({ kind: 'connect timeout', reason: `no connection within ${this.#connectTimeoutMs} ms` });
    }
    for (const connection of this.#idle) {
      if (nowMs - connection.sinceMs > this.#keepMs(connection) || nowMs > connection.keptUntilMs) connection.destroy();
    }
  }

  /** How long a connection is kept idle. */
  #keepMs({ keepAliveMs: saidMs }: UpstreamConnection): number {
    if (saidMs < 0) return this.#keepAliveMs ?? KEEP_ALIVE_MS;
    return this.#keepAliveMs === undefined ? saidMs : Math.min(saidMs, this.#keepAliveMs);
  }

  get isUnused(): boolean {
    return this.#open.size === 0;
  }

  /** Keeps no connection from now on: what is open ends with its request. */
  retire(): void {
    this.#isRetired = true;
    this.#idleMax = 0;
    this.#check?.stop();
    for (const connection of [...this.#idle]) connection.destroy();
  }

  close(): void {
    for (const connection of [...this.#open]) connection.destroy();
  }
}

const KEEP_ALIVE_MS = 4_000;
/**
 * How long a connection to a name takes requests, give or take a tenth: the next one is opened to what the name stands for then.
 * A busy connection would keep an address that is gone for ever.
 */
export const LIFE_MS = 60_000;

const isAddress = (host: string): boolean => /^[\d.]+$|:/.test(host);
