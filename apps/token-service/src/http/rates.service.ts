import { REDIS } from '@latchkey/contracts';
import { createRedis, type Logger } from '@latchkey/runtime';
import { Inject, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import type { Redis } from 'ioredis';
import { CONFIG, LOGGER, type TokenServiceConfig } from '../config.js';
import { Refusal } from './http.errors.js';

const REMEMBERED_MAX = 10_000;

/**
 * How often somebody has come, counted over all replicas in Redis; by each replica alone, on top, so that an absent
 * Redis lifts no limit.
 */
@Injectable()
export class RatesService implements OnApplicationShutdown {
  readonly #redis: Redis;
  readonly #own = new Map<string, { count: number; endsMs: number }>();

  constructor(@Inject(CONFIG) config: TokenServiceConfig, @Inject(LOGGER) logger: Logger) {
    this.#redis = createRedis(config.REDIS_URL, 'token-service attempts', logger);
  }

  onApplicationShutdown(): void {
    this.#redis.disconnect();
  }

  /**
   * Counts one attempt of `who` at `what`, in windows of fixed length.
   * @throws Refusal `rate_limited` with Retry-After when it is one too many
   */
  async count(what: string, who: string, limit: { max: number; windowSeconds: number }): Promise<void> {
    const windowMs = limit.windowSeconds * 1000;
    const window = Math.floor(Date.now() / windowMs);
    const name = `${REDIS.rateLimit}:${what}:${window}:${who}`;
    const counted = Math.max(
      this.#countAlone(name, (window + 1) * windowMs),
      await this.#countTogether(name, windowMs),
    );
    if (counted <= limit.max) return;
    const seconds = Math.max(1, Math.ceil(((window + 1) * windowMs - Date.now()) / 1000));
    throw new Refusal(
      'rate_limited',
      `At most ${limit.max} such requests in ${limit.windowSeconds} s. Wait ${seconds} s.`,
      {
        headers: {
          'retry-after': String(seconds),
          ratelimit: `limit=${limit.max}, remaining=0, reset=${seconds}`,
        },
      },
    );
  }

  #countAlone(name: string, endsMs: number): number {
    const own = this.#own.get(name) ?? { count: 0, endsMs };
    own.count++;
    this.#own.delete(name);
    this.#own.set(name, own);
    for (const [oldest, { endsMs }] of this.#own) {
      if (this.#own.size <= REMEMBERED_MAX && endsMs > Date.now()) break;
      this.#own.delete(oldest);
    }
    return this.#own.get(name)?.count ?? own.count;
  }

  async #countTogether(name: string, windowMs: number): Promise<number> {
    try {
      const [counted] =
        (await this.#redis
          .multi()
          .incr(name)
          .pexpire(name, windowMs * 2)
          .exec()) ?? [];
      return Number(counted?.[1] ?? 0);
    } catch {
      return 0; // Redis is away: the connection has said so, and the own count stands
    }
  }
}
