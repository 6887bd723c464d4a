import { REDIS } from '@latchkey/contracts';
import type { Redis } from 'ioredis';
import { RateLimiterMemory, type RateLimiterRes } from 'rate-limiter-flexible';
import type { Clock } from './clock.js';

/** The state of a rate limit after a use. */
export interface RateState {
  readonly allowed: boolean;
  readonly limit: number;
  readonly windowSeconds: number;
  readonly remaining: number;
  /** Seconds until the window ends. */
  readonly resetSeconds: number;
}

/** Uses allowed in a window. */
export interface Rate {
  readonly limit: number;
  readonly windowSeconds: number;
}

/** A rate, and what it is counted under. */
export interface Bucket extends Rate {
  /** Empty: the caller of `consumeAll`. */
  readonly bucket: string;
}

/** How long this process counts alone after a command failed. */
const UNAVAILABLE_MS = 1_000;
/** Cached limiters, one for each pair of limit and window; an evicted one is created again. */
const LIMITERS_MAX = 1_000;
/** Cached buckets that are exhausted. */
const FULL_MAX = 10_000;

/**
 * Counts in all buckets or in none, in one step. KEYS: the buckets. ARGV: the uses, then limit and window in milliseconds
 * of each. Returns whether it counted, then for each bucket its count and the milliseconds until its window ends.
 */
const CONSUME = `
local uses, allowed, result = tonumber(ARGV[1]), 1, {}
for i, key in ipairs(KEYS) do
  local used, left = tonumber(redis.call('GET', key) or '0'), redis.call('PTTL', key)
  if used + uses > tonumber(ARGV[2 * i]) then allowed = 0 end
  result[2 * i], result[2 * i + 1] = used, left
end
if allowed == 1 then
  for i, key in ipairs(KEYS) do
    result[2 * i] = redis.call('INCRBY', key, uses)
    if result[2 * i + 1] < 0 then
      redis.call('PEXPIRE', key, ARGV[2 * i + 1])
      result[2 * i + 1] = tonumber(ARGV[2 * i + 1])
    end
  end
end
result[1] = allowed
return result`;

type Consume = (keys: number, ...args: (string | number)[]) => Promise<number[]>;

/**
 * Uses within a window, counted in Redis across all endpoints of all services. While Redis is unavailable each process
 * counts alone: no request is rejected because of that.
 */
export class RateLimits {
  readonly #limiters = new Map<string, RateLimiterMemory>();
  /** Exhausted buckets by key and limit, rejected without a Redis command until their window ends. */
  readonly #full = new Map<string, number>();
  readonly #consume: Consume;
  #unavailableUntilMs = 0;
  /** Uses that were counted without Redis. */
  countedAlone = 0;

  /** @param redis a connection whose commands fail soon when Redis is unavailable */
  constructor(
    private readonly redis: Redis,
    private readonly clock: Pick<Clock, 'wallMs'>,
  ) {
    redis.defineCommand('latchkeyConsume', { lua: CONSUME });
    const { latchkeyConsume } = redis as unknown as { latchkeyConsume: Consume };
    this.#consume = latchkeyConsume.bind(redis);
  }

  /** Counts one use of one limit. @param who identifies what is counted */
  consume(who: string, rate: Rate): Promise<RateState> {
    return this.consumeAll(who, [{ bucket: '', ...rate }]);
  }

  /**
   * Counts uses in several buckets at once; each must allow them, and when one does not, none counts them.
   * @param who identifies what a bucket without a name counts
   * @param uses more than a limit are never allowed
   * @returns the state of the bucket that rejects for longest, or else of the one with the fewest remaining uses
   */
  async consumeAll(who: string, buckets: readonly Bucket[], uses = 1): Promise<RateState> {
    const rates = buckets.map((rate) => ({ ...rate, key: keyOf(rate.bucket || who, rate) }));
    const nowMs = this.clock.wallMs();
    const full = rates.flatMap((rate) => {
      const untilMs = this.#full.get(`${rate.key}/${rate.limit}`);
      return untilMs !== undefined && untilMs > nowMs ? [state(rate, false, 0, untilMs - nowMs)] : [];
    });
    if (full.length > 0) return tightest(full);
    if (this.redis.status === 'ready' && nowMs >= this.#unavailableUntilMs) {
      try {
        const result = await this.#consume(
          rates.length,
          ...rates.map(({ key }) => key),
          uses,
          ...rates.flatMap(({ limit, windowSeconds }) => [limit, windowSeconds * 1000]),
        );
        return this.#read(rates, result, uses);
      } catch {
        this.#unavailableUntilMs = this.clock.wallMs() + UNAVAILABLE_MS;
      }
    }
    this.countedAlone++;
    return this.#alone(rates, uses);
  }

  #read(rates: readonly (Rate & { key: string })[], [allowed, ...counts]: readonly number[], uses: number): RateState {
    const states = rates.map((rate, i) => {
      const [used, leftMs] = [counts[2 * i]!, Math.max(0, counts[2 * i + 1]!)];
      if (used >= rate.limit) this.#noteFull(`${rate.key}/${rate.limit}`, this.clock.wallMs() + leftMs);
      return state(rate, allowed === 1 || used + uses <= rate.limit, Math.max(0, rate.limit - used), leftMs);
    });
    return tightest(states);
  }

  #noteFull(name: string, untilMs: number): void {
    if (this.#full.size >= FULL_MAX) this.#full.delete(this.#full.keys().next().value!);
    this.#full.set(name, untilMs);
  }

  async #alone(rates: readonly (Rate & { key: string })[], uses: number): Promise<RateState> {
    const states: RateState[] = [];
    for (const rate of rates) {
      const limiter = this.#limiter(rate);
      const { result, allowed } = await limiter.consume(rate.key, uses).then(
        (result) => ({ result, allowed: true }),
        (result: RateLimiterRes) => ({ result, allowed: false }),
      );
      states.push(state(rate, allowed, Math.max(0, result.remainingPoints), result.msBeforeNext));
      if (allowed) continue;
      // A use that one bucket rejects must not count in the others.
      for (const before of states.keys()) {
        const counted = rates[before]!;
        if (states[before]!.allowed) await this.#limiter(counted).reward(counted.key, uses);
      }
      break;
    }
    return tightest(states);
  }

  #limiter({ limit, windowSeconds }: Rate): RateLimiterMemory {
    const name = `${limit}/${windowSeconds}`;
    let limiter = this.#limiters.get(name);
    if (!limiter) {
      limiter = new RateLimiterMemory({ points: limit, duration: windowSeconds });
      if (this.#limiters.size >= LIMITERS_MAX) this.#limiters.delete(this.#limiters.keys().next().value!);
      this.#limiters.set(name, limiter);
    }
    return limiter;
  }
}

const keyOf = (who: string, { windowSeconds }: Rate): string => `${REDIS.rateLimit}:${windowSeconds}:${who}`;

const state = ({ limit, windowSeconds }: Rate, allowed: boolean, remaining: number, leftMs: number): RateState => ({
  allowed,
  limit,
  windowSeconds,
  remaining: allowed ? remaining : 0,
  resetSeconds: Math.max(0, Math.ceil(leftMs / 1000)),
});

/** The state that limits the caller. */
function tightest(states: readonly RateState[]): RateState {
  return states.reduce((a, b) => {
    if (a.allowed !== b.allowed) return a.allowed ? b : a;
    if (!a.allowed) return a.resetSeconds >= b.resetSeconds ? a : b;
    return a.remaining <= b.remaining ? a : b;
  });
}

/** `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers), and `Retry-After` when it is exceeded. */
export function rateHeaders(rate: RateState): Record<string, string> {
  const headers: Record<string, string> = {
    'ratelimit-policy': `"token";q=${rate.limit};w=${rate.windowSeconds}`,
    ratelimit: `"token";r=${rate.remaining};t=${rate.resetSeconds}`,
  };
  if (!rate.allowed) headers['retry-after'] = String(Math.max(1, rate.resetSeconds));
  return headers;
}
