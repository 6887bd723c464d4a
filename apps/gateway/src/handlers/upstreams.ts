import { Pool } from 'undici';

export interface UpstreamOptions {
  /** Longest time to connect. Default 5 000. */
  connectTimeoutMs?: number;
  /** How long an idle connection stays open. Default 4 000: less than the keep-alive of most servers. */
  keepAliveMs?: number;
}

/** Connections to one upstream. `fresh` opens one per request: for the retry after a stale one. */
export interface Upstream {
  readonly origin: string;
  readonly pooled: Pool;
  readonly fresh: Pool;
}

/** Connection pools by origin, created at the first use. */
export class Upstreams {
  readonly #byOrigin = new Map<string, Upstream>();

  constructor(private readonly options: UpstreamOptions = {}) {}

  get(origin: string): Upstream {
    let upstream = this.#byOrigin.get(origin);
    if (!upstream) {
      const common = {
        allowH2: false,
        connectTimeout: this.options.connectTimeoutMs ?? 5_000,
        // Exchange enforces the route's limits.
        bodyTimeout: 0,
        headersTimeout: 0,
        maxHeaderSize: 65_536,
      };
      upstream = {
        origin,
        pooled: new Pool(origin, { ...common, pipelining: 1, keepAliveTimeout: this.options.keepAliveMs ?? 4_000 }),
        fresh: new Pool(origin, { ...common, pipelining: 0 }),
      };
      this.#byOrigin.set(origin, upstream);
    }
    return upstream;
  }

  async close(): Promise<void> {
    const all = [...this.#byOrigin.values()].flatMap(({ pooled, fresh }) => [pooled, fresh]);
    this.#byOrigin.clear();
    await Promise.all(all.map((pool) => pool.destroy()));
  }
}
