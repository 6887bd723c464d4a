import {
  type Effect,
  feedKey,
  type Invalidation,
  type InvalidationKind,
  REDIS,
  signInvalidation,
} from '@latchkey/contracts';
import { type Clock, createRedis, type Logger, newId } from '@latchkey/runtime';
import { Inject, Injectable, type OnApplicationShutdown, type OnModuleInit } from '@nestjs/common';
import type { Redis } from 'ioredis';
import { CLOCK, CONFIG, LOGGER, type TokenServiceConfig } from '../config.js';
import { Database, rows, type Tx } from '../database/database.service.js';

export type { Invalidation } from '@latchkey/contracts';

/** What a change that narrowed nothing answers: it is effective by itself. */
export const NOTHING_NARROWED: Effect = { effective: true, receipt: null, pending: [] };

interface Lease {
  verifier_id: string;
  name: string;
  lease_ms: number;
}

/**
 * Makes a narrowing change effective everywhere: `write` inside the change's transaction, `confirm` after its commit.
 */
@Injectable()
export class InvalidationService implements OnModuleInit, OnApplicationShutdown {
  readonly #redis: Redis;
  readonly #feedKey: Buffer;
  #log = '';

  constructor(
    private readonly db: Database,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
    @Inject(LOGGER) private readonly logger: Logger,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {
    this.#feedKey = feedKey(Buffer.from(config.EVENTS_SECRET));
    this.#redis = createRedis(config.REDIS_URL, 'token-service invalidations', logger);
  }

  async onModuleInit(): Promise<void> {
    const [row] = await this.db.query<{ log: string }>('SELECT log FROM invalidation_log');
    this.#log = row!.log;
  }

  onApplicationShutdown(): void {
    this.#redis.disconnect();
  }

  /** Writes the invalidation in the transaction of the change that it tells of. */
  async write(tx: Tx, what: { kind: InvalidationKind; subject: string; cut: boolean }): Promise<Invalidation> {
    const id = newId();
    const [row] = await rows<{ xid: string }>(
      tx,
      `INSERT INTO invalidations (id, kind, subject, cut, created_at) VALUES ($1, $2, $3, $4, $5) RETURNING xid::text`,
      [id, what.kind, what.subject, what.cut, new Date(this.clock.wallMs())],
    );
    return { id, ...what, xid: row!.xid };
  }

  /** The invalidation by its id; null once it has been pruned, when no lease of its time can be running. */
  async read(id: string): Promise<Invalidation | null> {
    const [row] = await this.db.query<Invalidation & { xid: string }>(
      'SELECT id, kind, subject, cut, xid::text AS xid FROM invalidations WHERE id = $1',
      [id],
    );
    return row ?? null;
  }

  /**
   * Tells the verifiers and waits until none can answer from before the change. Call it after the commit.
   * @param options.waitMs longest wait; undefined: as long as it takes, which is a lease, its drift and two seconds
   */
  async confirm(
    invalidations: readonly Invalidation[],
    options: { waitMs?: number | undefined } = {},
  ): Promise<Effect> {
    const startedMs = this.clock.monotonicMs();
    const leases = await this.db.query<Lease>('SELECT verifier_id, name, lease_ms FROM leases');
    await this.#publish(invalidations);
    if (leases.length > 0) {
      const longestMs = Math.max(...leases.map(({ lease_ms }) => lease_ms)) * 1.2;
      const waitMs = Math.min(options.waitMs ?? longestMs, longestMs);
      await new Promise<void>((resolve) => this.clock.after(waitMs, resolve));
      if (waitMs < longestMs) {
        const pending = leases.map((l) => ({ id: l.verifier_id, name: l.name, leaseEndsInMs: longestMs - waitMs }));
        return { effective: false, receipt: null, pending };
      }
    }
    const elapsedMs = this.clock.monotonicMs() - startedMs;
    const verifiers = leases.map((l) => ({ id: l.verifier_id, name: l.name, by: 'lease' as const, ms: elapsedMs }));
    const confirmedAt = new Date(this.clock.wallMs()).toISOString();
    return { effective: true, receipt: { confirmedAt, elapsedMs, verifiers }, pending: [] };
  }

  async #publish(invalidations: readonly Invalidation[]): Promise<void> {
    for (const invalidation of invalidations) {
      const event = signInvalidation(this.#feedKey, this.#log, invalidation);
      try {
        await this.#redis.publish(REDIS.invalidations, JSON.stringify(event));
      } catch (error) {
        // Only the time to confirm grows: PostgreSQL has the invalidation, and every renewal reads it.
        this.logger.debug({ reason: (error as Error).message }, 'an invalidation could not be published');
      }
    }
  }

  /** As granted to verifiers, in milliseconds. */
  get leaseMs(): number {
    return this.config.LEASE_MS;
  }
}
