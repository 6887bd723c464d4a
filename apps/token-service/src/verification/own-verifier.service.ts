import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import type { Clock, Logger } from '@latchkey/runtime';
import {
  RenewalRefused,
  type Requirement,
  type TokenSource,
  type Verdict,
  Verifier,
  WatchFeed,
} from '@latchkey/verifier';
import { type BeforeApplicationShutdown, Inject, Injectable, type OnApplicationBootstrap } from '@nestjs/common';
import { Counter, type Registry } from 'prom-client';
import { CLOCK, CONFIG, LOGGER, type TokenServiceConfig, VERSION } from '../config.js';
import { unavailable } from '../http/index.js';
import { InvalidationService, LeaseRefused } from '../invalidation/index.js';
import { SnapshotService } from './snapshot.service.js';

/** Checks in one second from which on a lease costs less than reading PostgreSQL for each. */
export const BUSY_CHECKS = 100;
/** How long a lease is kept after the last such second. */
export const KEPT_MS = 60_000;
const TICK_MS = 1_000;
const NAME_LENGTH_MAX = 100;
/** A look-up that failed after so long has waited for PostgreSQL: another one would wait as long again. */
const WAITED_MS = 1_000;
/** Longest wait at a stop for the release of the lease. */
const STOP_TIMEOUT_MS = 2_000;
/** Lookups are bounded in all, not by address: callers name addresses, and PostgreSQL is read for what is beyond. */
const LIMITS = { fillsPerAddressMax: 1_000_000 };

/**
 * Checks tokens from this process's memory while it is asked often: a verifier as every other one, with a lease of its own
 * that confirmations wait for. Otherwise it holds no lease, remembers nothing, and delays no confirmation.
 */
@Injectable()
export class OwnVerifierService implements OnApplicationBootstrap, BeforeApplicationShutdown {
  #verifier: Verifier | undefined;
  #stopping: Promise<void> = Promise.resolve();
  #checks = 0;
  #busyAtMs = 0;
  #isStopped = false;
  #cancelTick: () => void = () => undefined;
  /** Checks from memory, and those that PostgreSQL was read for. */
  readonly #counters = { memory: 0, database: 0 };

  constructor(
    private readonly invalidations: InvalidationService,
    private readonly snapshots: SnapshotService,
    @Inject(CONFIG) private readonly config: Pick<TokenServiceConfig, 'RPC_PORT' | 'TOKEN_PREFIX'>,
    @Inject(LOGGER) private readonly logger: Logger,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  onApplicationBootstrap(): void {
    this.#tickLater();
  }

  async beforeApplicationShutdown(): Promise<void> {
    await this.stop();
  }

  /** Ends the use of memory at once, and releases the lease; from then on every check reads PostgreSQL. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#cancelTick();
    this.#end();
    const { promise: timeout, resolve } = Promise.withResolvers<void>();
    const cancel = this.clock.after(STOP_TIMEOUT_MS, resolve);
    await Promise.race([this.#stopping, timeout]);
    cancel();
  }

  registerMetrics(registry: Registry): void {
    const counters = this.#counters;
    new Counter({
      name: 'latchkey_verify_checks_total',
      help: 'Checks of Verify and VerifyBatch, from memory under a lease or from the database',
      labelNames: ['from'],
      registers: [registry],
      collect() {
        this.reset();
        this.inc({ from: 'memory' }, counters.memory);
        this.inc({ from: 'database' }, counters.database);
      },
    });
  }

  /** Counts a check towards a lease. */
  noteCheck(from: 'memory' | 'database'): void {
    this.#checks++;
    this.#counters[from]++;
  }

  /** Looks a token that was accepted up once more, so that the next check of it is from memory. */
  remember(secret: string, requirement: Requirement): void {
    const verifier = this.#verifier;
    if (verifier?.state().leaseHeld && verifier.recall(secret, requirement) === undefined)
      void verifier.verify(secret, requirement);
  }

  /** The verdict from memory; undefined: PostgreSQL has to be read. */
  recall(secret: string, requirement: Requirement): Verdict | undefined {
    return this.#verifier?.recall(secret, requirement);
  }

  /**
   * The verdict, read from PostgreSQL unless another check is reading it under this lease; undefined: no verdict.
   * @throws ApiError `unavailable` when PostgreSQL did not answer in time
   */
  async verdictOf(secret: string, requirement: Requirement): Promise<Verdict | undefined> {
    if (!this.#verifier) return undefined;
    const beganMs = this.clock.monotonicMs();
    const verdict = await this.#verifier.verify(secret, requirement);
    if (verdict.allowed || verdict.reason !== 'unavailable') return verdict;
    if (this.clock.monotonicMs() - beganMs >= WAITED_MS) throw unavailable('the database is unavailable; try again');
    return undefined;
  }

  #tickLater(): void {
    if (!this.#isStopped) this.#cancelTick = this.clock.after(TICK_MS, () => this.#tick());
  }

  #tick(): void {
    const isBusy = this.#checks >= BUSY_CHECKS;
    const nowMs = this.clock.monotonicMs();
    this.#checks = 0;
    if (isBusy) this.#busyAtMs = nowMs;
    if (isBusy && !this.#verifier) this.#begin();
    else if (nowMs - this.#busyAtMs >= KEPT_MS) this.#end();
    this.#tickLater();
  }

  #begin(): void {
    const { invalidations, clock, logger, config } = this;
    this.#verifier = new Verifier({
      name: `${hostname()}:${config.RPC_PORT}`.slice(-NAME_LENGTH_MAX),
      version: VERSION,
      newClaim: () => randomBytes(32).toString('base64url'),
      clock,
      source: this.#source(),
      feed: new WatchFeed({ open: () => invalidations.watchHere(), clock }),
      prefix: config.TOKEN_PREFIX,
      limits: LIMITS,
      onIdentityRefused: (why) => logger.warn({ why }, 'lease refused; this verifier continues under a new id'),
    });
    void this.#verifier.start();
  }

  #end(): void {
    const verifier = this.#verifier;
    this.#verifier = undefined;
    if (verifier) this.#stopping = this.#stopping.then(() => verifier.stop());
  }

  /** What other verifiers call over gRPC. */
  #source(): TokenSource {
    const { invalidations, snapshots } = this;
    return {
      lookup: (hash) => snapshots.lookup(hash),
      renew: (request) =>
        invalidations.renewHere(request).catch((error: unknown) => {
          if (!(error instanceof LeaseRefused)) throw error;
          throw new RenewalRefused('identity', error.message);
        }),
      release: (request) => invalidations.releaseHere(request),
    };
  }
}
