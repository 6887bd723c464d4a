import { createRedis, type Logger, RateLimits, type RateState, rateHeaders } from '@latchkey/runtime';
import type { Principal } from '@latchkey/verifier';
import { Inject, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import type { Redis } from 'ioredis';
import { CONFIG, LOGGER, type TokenServiceConfig } from '../config.js';
import { Refusal } from './http.errors.js';

/** A slow Redis must not hold up an answer for longer than counting alone for a while is worth. */
const COMMAND_TIMEOUT_MS = 200;

/**
 * How often somebody has come, counted in Redis over all replicas; a token's uses over the gateways too. While Redis is
 * away each replica counts alone, so its absence lifts no limit altogether.
 */
@Injectable()
export class RatesService implements OnApplicationShutdown {
  readonly #redis: Redis;
  readonly #limits: RateLimits;

  constructor(@Inject(CONFIG) config: TokenServiceConfig, @Inject(LOGGER) logger: Logger) {
    this.#redis = createRedis(config.REDIS_URL, 'token-service rates', logger, { commandTimeout: COMMAND_TIMEOUT_MS });
    this.#limits = new RateLimits(this.#redis);
  }

  onApplicationShutdown(): void {
    this.#redis.disconnect();
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
   * @throws Refusal `rate_limited` with Retry-After when it is one too many
   */
  async count(what: string, who: string, limit: { max: number; windowSeconds: number }): Promise<void> {
    const state = await this.tally(what, who, limit);
    if (!state.allowed) throw tooMany(state);
  }
}

export function tooMany(rate: RateState, denial?: Refusal['extra']['denial']): Refusal {
  const detail = `At most ${rate.limit} such requests in ${rate.windowSeconds} s. Wait ${Math.max(1, rate.resetSeconds)} s.`;
  return new Refusal('rate_limited', detail, { headers: rateHeaders(rate), ...(denial && { denial }) });
}
