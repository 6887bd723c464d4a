import type { Logger } from '@latchkey/runtime';
import { type UpstreamSettings, type UpstreamTls, upstreamSettings } from '../routes/index.js';
import { UpstreamHealth } from './upstream-health.js';
import { UpstreamPool } from './upstream-pool.js';

/** The pools of all upstreams: one for equal settings. One timer serves all of them. */
export class UpstreamPools {
  /** Of the routes in use. */
  #byKey = new Map<string, UpstreamPool>();
  readonly #others: UpstreamPool[] = [];
  /** Of former routes, by the time since which no new request chooses them. */
  readonly #retired = new Map<UpstreamPool, number>();
  readonly #timer: NodeJS.Timeout;

  constructor(private readonly logger: Logger) {
    this.#timer = setInterval(() => this.#tick(performance.now()), TICK_MS);
    this.#timer.unref();
  }

  /** A pool for an upstream that no route names. */
  open(origin: string, tls?: UpstreamTls): UpstreamPool {
    const pool = this.#poolFor(upstreamSettings(origin, { tls }));
    this.#others.push(pool);
    return pool;
  }

  /** A pool of the routes in use. @throws Error for settings that `use` was not given */
  get({ key, origin }: UpstreamSettings): UpstreamPool {
    const pool = this.#byKey.get(key);
    if (!pool) throw new Error(`no route in use has the upstream ${origin}`);
    return pool;
  }

  /** From now on the upstreams of the routes are these. Those that remain keep their connections. */
  use(upstreams: readonly UpstreamSettings[]): void {
    const byKey = new Map<string, UpstreamPool>();
    for (const settings of upstreams)
      if (!byKey.has(settings.key)) byKey.set(settings.key, this.#byKey.get(settings.key) ?? this.#poolFor(settings));
    const nowMs = performance.now();
    for (const [key, pool] of this.#byKey) {
      if (byKey.has(key)) continue;
      pool.retire();
      this.#retired.set(pool, nowMs);
    }
    this.#byKey = byKey;
  }

  /** Of the routes in use. */
  get health(): UpstreamHealth[] {
    return [...this.#byKey.values()].flatMap(({ health }) => (health ? [health] : []));
  }

  #poolFor(settings: UpstreamSettings): UpstreamPool {
    const { origin, isWatched } = settings;
    const health = isWatched ? new UpstreamHealth(origin, this.logger) : undefined;
    return new UpstreamPool(new URL(origin), { ...settings, health });
  }

  #tick(nowMs: number): void {
    for (const pool of this.#all()) pool.tick(nowMs);
    for (const [pool, sinceMs] of this.#retired)
      if (pool.isUnused && nowMs - sinceMs > RETIRED_MS) this.#retired.delete(pool);
  }

  #all(): UpstreamPool[] {
    return [...this.#byKey.values(), ...this.#others, ...this.#retired.keys()];
  }

  close(): void {
    clearInterval(this.#timer);
    for (const pool of this.#all()) pool.close();
  }
}

const TICK_MS = 250;
/** A request that was matched to a former route opens its connection within this time: the longest that a request can take. */
const RETIRED_MS = 3_600_000;
