import {
  type Effect,
  FIRST_PARTY_CALLER,
  type Invalidation,
  type Pending,
  type Receipt,
  type ReleaseRequest,
  type RenewRequest,
  type RenewResponse,
} from '@latchkey/contracts';
import { type Clock, type Logger, newId } from '@latchkey/runtime';
import { type BeforeApplicationShutdown, Inject, Injectable, type OnApplicationBootstrap } from '@nestjs/common';
import type { Redis } from 'ioredis';
import type { Registry } from 'prom-client';
import { CLOCK, CONFIG, LOGGER, type TokenServiceConfig } from '../config.js';
import { type AfterCommit, type Change, Database } from '../database/index.js';
import { unavailable } from '../http/index.js';
import { LedgerService } from '../ledger/index.js';
import { InjectRedis } from '../redis/index.js';
import { effectAsSeen } from './callers.js';
import { Confirmations, EXTRA_WAIT_MS } from './confirm.js';
import { FeedKeys } from './feed-keys.js';
import { type LeaseCaller, Leases } from './leases.js';
import { InvalidationLog } from './log.js';
import { registerMetrics, registerWatchMetrics } from './metrics.js';
import { OwnWatch } from './own-watch.js';
import {
  INSERT_INVALIDATIONS,
  type LeasesFound,
  leaseCallers,
  leasesReading,
  type NewInvalidation,
  PostgresStore,
  SELECT_LEASES,
} from './postgres-store.js';
import { type About, aboutOf } from './receipts.queries.js';
import { ReceiptsService } from './receipts.service.js';
import { RedisBus } from './redis-bus.js';
import { ChangeForgotten, type InvalidationStore, type LeasesReading, lapsedAfterMs, UNOWNED } from './types.js';
import { WatchBus } from './watch.bus.js';
import { WatchHub } from './watch.hub.js';

export type { Invalidation } from '@latchkey/contracts';
export { receiptAsSeen } from './callers.js';
export { IS_RECONFIRMED, type NewInvalidation } from './postgres-store.js';

/** This process, as the holder of a lease. */
const HERE: LeaseCaller = { id: FIRST_PARTY_CALLER, firstParty: true, holder: FIRST_PARTY_CALLER };

/** The error when a restored database no longer contains a change that is being confirmed. */
export const changeLost = () =>
  unavailable(
    'The database was put back to a state from before this change, which is thereby undone. Repeat the change.',
  );

/** The effect of a change that reduces no rights, of a name for example. */
export const NO_INVALIDATION: Effect = { effective: true, receipt: null, pending: [] };

/** In place of a transaction id until there is one: arithmetic on it throws. */
const UNCOMMITTED = 'uncommitted';
/** How often dead leases are reaped. */
const REAP_MS = 1_000;
/** How often it is checked whether unowned leases have lapsed. */
const UNOWNED_POLL_MS = 200;
/** How often it is recorded for all replicas that renewals contain this one's keys. */
const ANNOUNCE_MS = 60_000;
/** Lease readings made after a commit and not used yet. A discarded one is read again. */
const READINGS_MAX = 1_000;
/** Longest that a response waits for the audit events of its receipt; after it the receipt is not signed. */
const CHANGES_WAIT_MS = 1_000;

export interface ConfirmOptions {
  /** Longest wait in milliseconds; undefined: one lease, its drift allowance and two seconds. */
  readonly waitMs?: number | undefined;
  /** What the receipt is about, besides what the invalidations name. */
  readonly about?: About;
  /** Stores the receipt in place of `ReceiptsService.keep`, possibly after the response. Called once. */
  readonly store?: (receipt: Receipt) => Promise<void>;
}

/**
 * Makes a change that reduces rights effective everywhere: `write` inside its transaction, `confirm` after its commit.
 */
@Injectable()
export class InvalidationService implements OnApplicationBootstrap, BeforeApplicationShutdown {
  readonly leases: Leases;
  /** Streams of verifiers that cannot reach Redis. */
  readonly watch: WatchHub;
  readonly #bus: RedisBus;
  readonly #log: InvalidationLog;
  readonly #store: InvalidationStore;
  readonly #confirmations: Confirmations;
  readonly #feedKeys: FeedKeys;
  readonly #cancel: (() => void)[] = [];
  /** By the invalidations committed before them: transaction ids repeat when a backup is restored. */
  readonly #readings = new Map<string, LeasesReading>();
  #stopped = false;

  constructor(
    db: Database,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
    @Inject(LOGGER) private readonly logger: Logger,
    @Inject(CLOCK) private readonly clock: Clock,
    private readonly receipts: ReceiptsService,
    private readonly ledger: LedgerService,
    @InjectRedis('invalidations') publisher: Redis,
    @InjectRedis('acknowledgements') subscriber: Redis,
  ) {
    const leaseMs = config.LEASE_MS;
    const store = new PostgresStore(db);
    const log = new InvalidationLog({ store, newId, clock, leaseMs });
    this.#log = log;
    this.#bus = new RedisBus(publisher, subscriber);
    const bus = new WatchBus(this.#bus);
    this.#store = store;
    const secrets = config.EVENTS_SIGNING_KEY.map((secret) => Buffer.from(secret));
    this.#feedKeys = new FeedKeys({ secrets, store, clock, leaseMs });
    const eventsSecret = Buffer.from(config.EVENTS_SECRET);
    const usageSecret = Buffer.from(config.USAGE_SECRET[0]);
    const deps = { store, log, clock, leaseMs, eventsSecret, feedKeys: this.#feedKeys };
    this.leases = new Leases({ ...deps, newId, usageSecret, protocolMin: config.PROTOCOL_MIN });
    const onSuspended = (holder: string, until: Date) =>
      logger.warn(
        { holder, until },
        'confirmations had to wait for leases of this owner to expire: the owner is suspended and gets no lease until then',
      );
    this.#confirmations = new Confirmations({ ...deps, bus, onSuspended });
    this.watch = new WatchHub({
      ...deps,
      isUnavailable: () => bus.isUnavailable(),
      leaseCallers: (verifierIds) => leaseCallers(db, verifierIds),
      onAcknowledgement: (text) => bus.acknowledge(text),
    });
    bus.hub = this.watch;
  }

  onApplicationBootstrap(): void {
    this.#confirmations.start();
    this.#bus.watchHealth(this.clock);
    this.#cancel.push(this.#bus.subscribeInvalidations((text) => this.watch.receive(text)));
    this.#every(REAP_MS, 'dead leases', () => this.leases.reap());
    this.#every(REAP_MS, 'times of confirmations', () => this.#noteConfirmations());
    void this.#announceKeys();
  }

  /** Callers that wait for a confirmation get what is pending. */
  beforeApplicationShutdown(): void {
    this.#stopped = true;
    for (const cancel of this.#cancel) cancel();
    this.#confirmations.stop();
    this.#bus.stop();
  }

  /**
   * Writes the invalidation in the transaction of its change.
   * @returns the invalidation; its `xid` is known once the change is committed
   */
  write(change: Change, what: NewInvalidation): Invalidation {
    return this.writeAll(change, [what])[0]!;
  }

  /** As `write`, several in one statement. */
  writeAll(change: Change, all: readonly NewInvalidation[]): Invalidation[] {
    if (all.length === 0) return [];
    const added = all.map(({ id = newId(), kind, subject, cut }) => ({ id, kind, subject, cut }));
    const invalidations: Invalidation[] = added.map((invalidation) => ({ ...invalidation, xid: UNCOMMITTED }));
    const sent = this.#log.sending();
    const after: AfterCommit = {
      // The leases, from the server that has just committed the invalidations.
      statement: [SELECT_LEASES],
      take: ([written], read) => {
        for (const invalidation of invalidations) invalidation.xid = written!['xid'];
        const reading = leasesReading(read as unknown as LeasesFound);
        this.#log.note(reading, sent);
        if (this.#readings.size >= READINGS_MAX) this.#readings.clear();
        for (const { id } of invalidations) this.#readings.set(id, reading);
      },
    };
    change.write([INSERT_INVALIDATIONS, [JSON.stringify(added)], after]);
    return invalidations;
  }

  /**
   * Notifies the verifiers and waits until none can return a result from before the change, and until the change is in the
   * ledger. Call it after the commit; a repeat is harmless.
   * @returns the effect, with callers named as far as the current actor can see them. The receipt is stored meanwhile,
   *   unless PostgreSQL fails
   * @throws ApiError `unavailable` when the database was restored to a state from before the change
   */
  async confirm(
    invalidations: readonly Invalidation[],
    { waitMs, about, store }: ConfirmOptions = {},
  ): Promise<Effect> {
    // Leases read after the commit of one transaction prove nothing about a later one.
    const isOneCommit = new Set(invalidations.map((invalidation) => invalidation.xid)).size === 1;
    const reading = isOneCommit ? this.#readings.get(invalidations[0]!.id) : undefined;
    for (const { id } of invalidations) this.#readings.delete(id);
    // Read while the verifiers are being waited for.
    const changes = this.receipts.changes(invalidations);
    const ledger = this.ledger.written();
    const signed = Promise.withResolvers<Receipt>();
    const onEffective = async (confirmed: Omit<Receipt, 'id'>) => {
      const bare = { id: newId(), ...confirmed, ledger: await ledger };
      const cancel = this.clock.after(CHANGES_WAIT_MS, () => signed.resolve(bare));
      const receipt = this.receipts.signed(bare, invalidations, await changes);
      cancel();
      signed.resolve(receipt);
      try {
        await (store ? store(receipt) : this.receipts.store(receipt, { ...aboutOf(invalidations), ...about }));
      } catch (error) {
        this.logger.warn({ receipt: receipt.id, reason: (error as Error).message }, 'a receipt was not kept');
        throw error;
      }
    };
    const effect = await this.#confirmations
      .confirm(invalidations, { waitMs, reading, onEffective })
      .catch((error: unknown) => {
        throw error instanceof ChangeForgotten ? changeLost() : error;
      });
    return effectAsSeen(effect.effective ? { ...effect, receipt: await signed.promise } : effect);
  }

  /** What `Renew` does, for a verifier in this process. @throws LeaseRefused */
  renewHere(request: RenewRequest): Promise<RenewResponse> {
    return this.leases.renew(request, HERE);
  }

  /** What `Release` does, for a verifier in this process. @throws LeaseRefused */
  async releaseHere(request: ReleaseRequest): Promise<void> {
    await this.leases.release(request, HERE.id);
  }

  /** What `Watch` does, for a verifier in this process. */
  watchHere(): OwnWatch {
    return new OwnWatch(this.watch, HERE, this.clock);
  }

  /** Length of the leases granted to verifiers, in milliseconds. */
  get leaseMs(): number {
    return this.config.LEASE_MS;
  }

  /** How long a change waits for its confirmation by default, in milliseconds. */
  get longestWaitMs(): number {
    return lapsedAfterMs(this.config.LEASE_MS) + EXTRA_WAIT_MS;
  }

  /**
   * Waits until earlier confirmations are valid again without asking the verifiers: until every verifier that may remember
   * results of another history, which a start of PostgreSQL can have ended, has lapsed.
   * @param waitMs longest wait
   * @returns the unowned leases that have not lapsed by then
   */
  async awaitUnownedLeases(waitMs: number): Promise<Pending> {
    const untilMs = this.clock.monotonicMs() + waitMs;
    for (;;) {
      const { leases } = await this.#log.leases();
      const unowned = leases.filter(({ callerId }) => callerId === UNOWNED);
      if (unowned.length === 0) return [];
      const leftMs = untilMs - this.clock.monotonicMs();
      if (leftMs <= 0 || this.#stopped)
        return unowned.map(({ verifierId: id, name, caller, leaseMs }) => {
          return { id, name, caller, leaseEndsInMs: lapsedAfterMs(leaseMs) };
        });
      await new Promise<void>((resolve) => this.clock.after(Math.min(leftMs, UNOWNED_POLL_MS), resolve));
    }
  }

  /** Records another database, or a start of its server, if no one has yet. */
  async followDatabase(): Promise<void> {
    await this.#log.leases();
  }

  registerMetrics(registry: Registry): void {
    registerMetrics(registry, this.#confirmations, this.leases);
    registerWatchMetrics(registry, this.watch);
  }

  async #noteConfirmations(): Promise<number> {
    const took = this.#confirmations.takeTimes();
    if (took.size > 0) await this.#store.noteConfirmations(took);
    return 0;
  }

  /** Until this has succeeded, the first key signs. */
  async #announceKeys(): Promise<void> {
    let delayMs = ANNOUNCE_MS;
    try {
      await this.#feedKeys.announce();
    } catch (error) {
      this.logger.debug({ reason: (error as Error).message }, 'announcing the feed keys failed, retrying');
      delayMs = REAP_MS;
    }
    if (!this.#stopped) this.#cancel.push(this.clock.after(delayMs, () => void this.#announceKeys()));
  }

  #every(ms: number, what: string, work: () => Promise<number>): void {
    const index = this.#cancel.length;
    const again = () => {
      if (!this.#stopped) this.#cancel[index] = this.clock.after(ms, () => void run());
    };
    const run = async () => {
      try {
        const removed = await work();
        if (removed > 0) this.logger.info({ removed }, `${what} removed`);
      } catch (error) {
        this.logger.debug({ reason: (error as Error).message }, `${what}: failed, retrying`);
      }
      again();
    };
    again();
  }
}
