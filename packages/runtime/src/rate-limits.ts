import { REDIS } from '@latchkey/contracts';
import type { Redis } from 'ioredis';
import { RateLimiterMemory, RateLimiterRedis, RateLimiterRes } from 'rate-limiter-flexible';

/** Where a token stands within its rate limit. */
export interface RateState {
  readonly allowed: boolean;
  readonly limit: number;
  readonly windowSeconds: number;
  readonly remaining: number;
  /** Seconds until the count begins anew. */
  readonly resetSeconds: number;
}

/** How long the counts of this process alone hold after Redis failed to answer. */
const AWAY_MS = 1_000;
/** Pairs of limit and window kept ready; a token whose pair is pushed out only costs making it anew. */
const LIMITERS_MAX = 1_000;

interface Limiter {
  readonly shared: RateLimiterRedis;
  readonly local: RateLimiterMemory;
}

/**
 * Uses within a window, counted in Redis for all doors of all services together. While Redis is away each process
 * counts alone: nobody is refused for its absence.
 */
export class RateLimits {
  readonly #limiters = new Map<string, Limiter>();
  #awayUntilMs = 0;
  /** Counts that were made without Redis. */
  countedAlone = 0;

  /** @param redis a connection whose commands fail soon when Redis is away */
  constructor(private readonly redis: Redis) {}

  /** Counts one use. @param who a token's id, or whatever else is counted */
  async consume(who: string, { limit, windowSeconds }: { limit: number; windowSeconds: number }): Promise<RateState> {
    const { shared, local } = this.#limiter(limit, windowSeconds);
    const state = (result: RateLimiterRes, allowed: boolean): RateState => ({
      allowed,
      limit,
      windowSeconds,
      remaining: allowed ? Math.max(0, result.remainingPoints) : 0,
      resetSeconds: Math.max(0, Math.ceil(result.msBeforeNext / 1000)),
    });
    if (this.redis.status === 'ready' && Date.now() >= this.#awayUntilMs) {
      try {
        return state(await shared.consume(who), true);
      } catch (refusal) {
        // The library rejects with a result when the limit is used up, and with an error when Redis failed.
        if (refusal instanceof RateLimiterRes) return state(refusal, false);
        this.#awayUntilMs = Date.now() + AWAY_MS;
      }
    }
    this.countedAlone++;
    return local.consume(who).then(
      (result) => state(result, true),
      (refusal: RateLimiterRes) => state(refusal, false),
    );
  }

  #limiter(limit: number, windowSeconds: number): Limiter {
    const name = `${limit}/${windowSeconds}`;
    let limiter = this.#limiters.get(name);
    if (!limiter) {
      const options = { points: limit, duration: windowSeconds, keyPrefix: `${REDIS.rateLimit}:${windowSeconds}` };
      limiter = {
        // Once the limit is reached, refusals until the window ends cost no question.
        shared: new RateLimiterRedis({ ...options, storeClient: this.redis, inMemoryBlockOnConsumed: limit }),
        local: new RateLimiterMemory(options),
      };
      if (this.#limiters.size >= LIMITERS_MAX) this.#limiters.delete(this.#limiters.keys().next().value!);
      this.#limiters.set(name, limiter);
    }
    return limiter;
  }
}

/** `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers), and `Retry-After` once it is used up. */
export function rateHeaders(rate: RateState): Record<string, string> {
  const headers: Record<string, string> = {
    'ratelimit-policy': `"token";q=${rate.limit};w=${rate.windowSeconds}`,
    ratelimit: `"token";r=${rate.remaining};t=${rate.resetSeconds}`,
  };
  if (!rate.allowed) headers['retry-after'] = String(Math.max(1, rate.resetSeconds));
  return headers;
}
