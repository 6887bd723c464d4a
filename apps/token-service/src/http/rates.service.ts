import { type Clock, RateLimits, type RateState, rateHeaders } from '@latchkey/runtime';
import type { Principal } from '@latchkey/verifier';
import { Inject, Injectable } from '@nestjs/common';
import type { Redis } from 'ioredis';
import { CLOCK } from '../config.js';
import { InjectRedis } from '../redis/index.js';
import { ApiError } from './http.errors.js';

/**
 * Rate limits, counted in Redis across all replicas; those of tokens across the gateways too. While Redis is unavailable
 * each replica counts by itself, so no limit is lifted entirely.
 */
@Injectable()
export class RatesService {
  readonly #limits: RateLimits;

  constructor(@InjectRedis('rates') redis: Redis, @Inject(CLOCK) clock: Clock) {
    this.#limits = new RateLimits(redis, clock);
  }

  /** Counts uses of a token against its own and its ancestors' rate limits, in the same counters as the gateways. */
  use(tokenId: string, rates: Principal['rates'], uses = 1): Promise<RateState> {
    return this.#limits.consumeAll(tokenId, rates, uses);
  }

  /** Counts one `what` of `key` against a limit. */
  tally(what: string, key: string, { max, windowSeconds }: { max: number; windowSeconds: number }): Promise<RateState> {
    return this.#limits.consume(`${what}:${key}`, { limit: max, windowSeconds });
  }

  /**
   * The same.
   * @throws ApiError `rate_limited` with Retry-After when the limit is exceeded
   */
  async count(what: string, key: string, limit: { max: number; windowSeconds: number }): Promise<void> {
    const state = await this.tally(what, key, limit);
    if (!state.allowed) throw tooMany(state);
  }
}

export function tooMany(rate: RateState, denial?: ApiError['extra']['denial']): ApiError {
  const detail = `At most ${rate.limit} such requests in ${rate.windowSeconds} s. Wait ${Math.max(1, rate.resetSeconds)} s.`;
  return new ApiError('rate_limited', detail, { headers: rateHeaders(rate), ...(denial && { denial }) });
}
