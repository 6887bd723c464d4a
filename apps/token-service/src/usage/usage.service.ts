import {
  type DenialLine,
  type DenialReason,
  FIRST_PARTY_CALLER,
  REDIS,
  signUsageBatch,
  type UsageBatch,
  type UsageLine,
  usageFields,
  usageKey,
} from '@latchkey/contracts';
import { createRedis, type Logger, newId } from '@latchkey/runtime';
import { hideSecrets } from '@latchkey/token-format';
import { Inject, Injectable, type OnApplicationShutdown, type OnModuleInit } from '@nestjs/common';
import type { Redis } from 'ioredis';
import { CONFIG, LOGGER, type TokenServiceConfig } from '../config.js';

/** What was decided about a token. */
type Outcome =
  | { allowed: true; known: { facts: { id: string } } }
  | { allowed: false; reason: DenialReason; tokenId?: string };

export interface Where {
  /** The door or the caller's name for what was called. */
  route: string;
  ip?: string | null | undefined;
  userAgent?: string | null | undefined;
}

/** The name under which the management door's own verifications are counted. */
export const MANAGEMENT_ROUTE = 'management';

const FLUSH_EVERY_MS = 1_000;
const LINES_MAX = 5_000;
const DENIALS_MAX = 1_000;
const HOUR_MS = 3_600_000;

/**
 * Counts the verifications of this service's own doors and hands them to jobs as verifiers do: in signed batches over
 * Redis, bounded, each once. Best effort; what is lost is counted.
 */
@Injectable()
export class UsageService implements OnModuleInit, OnApplicationShutdown {
  readonly #id = newId();
  readonly #key: Buffer;
  readonly #redis: Redis;
  #lines = new Map<string, UsageLine>();
  #denials: DenialLine[] = [];
  #denialsDropped = 0;
  #sequence = 0;
  #timer: NodeJS.Timeout | undefined;
  #sending: Promise<void> = Promise.resolve();

  constructor(
    @Inject(CONFIG) config: TokenServiceConfig,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {
    const identity = { verifierId: this.#id, caller: FIRST_PARTY_CALLER };
    this.#key = usageKey(Buffer.from(config.USAGE_SECRET), identity);
    this.#redis = createRedis(config.REDIS_URL, 'token-service usage', logger);
  }

  onModuleInit(): void {
    this.#timer = setInterval(() => void this.flush(), FLUSH_EVERY_MS);
    this.#timer.unref();
  }

  async onApplicationShutdown(): Promise<void> {
    clearInterval(this.#timer);
    await this.flush();
    this.#redis.disconnect();
  }

  /** Counts one verification of a token that is known; of others there is nothing to count. */
  count(outcome: Outcome, where: Where): void {
    const tokenId = outcome.allowed ? outcome.known.facts.id : outcome.tokenId;
    if (tokenId === undefined) return;
    const nowMs = Date.now();
    const hourMs = nowMs - (nowMs % HOUR_MS);
    const route = hideSecrets(where.route).slice(0, 100);
    const status = outcome.allowed ? 'allowed' : outcome.reason;
    const ip = (where.ip ?? '').slice(0, 45);
    const userAgent = hideSecrets(where.userAgent ?? '').slice(0, 200);
    const name = JSON.stringify([tokenId, hourMs, route, status, ip, userAgent]);
    const line = this.#lines.get(name);
    if (line) {
      line.count++;
      line.lastSeenMs = nowMs;
    } else if (this.#lines.size < LINES_MAX)
      this.#lines.set(name, {
        tokenId,
        hourMs,
        route,
        status,
        ip,
        userAgent,
        count: 1,
        firstSeenMs: nowMs,
        lastSeenMs: nowMs,
      });
  }

  /** Keeps a denial, so that it can be looked up by its requestId. */
  deny(denial: Omit<DenialLine, 'atMs'>): void {
    if (this.#denials.length >= DENIALS_MAX) {
      this.#denialsDropped++;
      return;
    }
    this.#denials.push({ ...denial, method: denial.method.slice(0, 20), ip: denial.ip.slice(0, 45), atMs: Date.now() });
  }

  /** Sends what was counted; resolves when it is sent, or was put back because Redis is away. */
  flush(): Promise<void> {
    this.#sending = this.#sending.then(() => this.#send());
    return this.#sending;
  }

  async #send(): Promise<void> {
    if (this.#lines.size === 0 && this.#denials.length === 0 && this.#denialsDropped === 0) return;
    // Redis away: go on counting within the bounds, rather than number a batch that cannot leave.
    if (this.#redis.status !== 'ready') return;
    const batch: UsageBatch = {
      verifier: this.#id,
      sequence: ++this.#sequence,
      lines: [...this.#lines.values()],
      denials: this.#denials,
      denialsDropped: this.#denialsDropped,
    };
    this.#lines = new Map();
    this.#denials = [];
    this.#denialsDropped = 0;
    const fields = usageFields(signUsageBatch(this.#key, FIRST_PARTY_CALLER, batch));
    try {
      await this.#redis.xadd(REDIS.usage, 'MAXLEN', '~', REDIS.usageStreamLengthMax, '*', ...fields);
    } catch (error) {
      this.logger.warn({ lines: batch.lines.length, reason: (error as Error).message }, 'a usage batch was lost');
    }
  }
}
