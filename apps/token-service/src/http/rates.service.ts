import { type Clock, RateLimits, type RateState, rateHeaders } from '@latchkey/runtime';
import type { Principal } from '@latchkey/verifier';
import { Inject, Injectable } from '@nestjs/common';
import type { Redis } from 'ioredis';
import { CLOCK } from '../config.js';
import { InjectRedis } from '../redis/index.js';
import { ApiError } from './http.errors.js';

/**
 * How often somebody has come, counted in Redis over all replicas; a token's uses over the gateways too. While Redis is
 * away each replica counts alone, so its absence lifts no limit altogether.
 */
@Injectable()
export class RatesService {
  readonly #limits: RateLimits;

  constructor(@InjectRedis('rates') redis: Redis, @Inject(CLOCK) clock: Clock) {
    this.#limits = new RateLimits(redis, clock);
  }

  /** Counts uses of a token within its own and its ancestors' rates: the same counts as at the gateways' doors. */
  use(tokenId: string, rates: Principal['rates'], uses = 1): Promise<RateState> {
    return this.#limits.consumeAll(tokenId, rates, uses);
  }

  /** Counts one of something of which only so many are wanted. */
  tally(what: string, who: string, { max, windowSeconds }: { max: number; windowSeconds: number }): Promise<RateState> {
    return this.#limits.consume(`${what}:${who}`, { limit: max, windowSeconds });
  }

  /**
   * Counts one attempt of `who` at `what`.
   * @throws ApiError `rate_limited` with Retry-After when it is one too many
   */
  async count(what: string, who: string, limit: { max: number; windowSeconds: number }): Promise<void> {
    const state = await this.tally(what, who, limit);
    if (!state.allowed) throw tooMany(state);
  }
}

export function tooMany(rate: RateState, denial?: ApiError['extra']['denial']): ApiError {
  const detail = `At most ${rate.limit} such requests in ${rate.windowSeconds} s. Wait ${Math.max(1, rate.resetSeconds)} s.`;
  return new ApiError('rate_limited', detail, { headers: rateHeaders(rate), ...(denial && { denial }) });
}
