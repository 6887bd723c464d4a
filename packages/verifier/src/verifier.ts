import { type Invalidation, signUsageBatch, type UsageBatch, type UsageBatchEvent } from '@latchkey/contracts';
import { DEFAULT_PREFIX, digestSecret, inspect, secretLength } from '@latchkey/token-format';
import { Applied } from './applied.js';
import { type Counters, newCounters } from './counters.js';
import { denied, evaluate } from './evaluate.js';
import { FeedReader } from './feed.js';
import { Fills } from './fills.js';
import { Lease } from './lease.js';
import { DEFAULT_LIMITS, type VerifierLimits } from './limits.js';
import { Memory } from './memory.js';
import { Streams } from './streams.js';
import { Tickets } from './tickets.js';
import { Timekeeper } from './time.js';
import type { Clock, Feed, Requirement, Stream, TokenSource, Verdict } from './types.js';

export interface VerifierOptions {
  /** For people. */
  readonly name: string;
  /** For people. Default empty. */
  readonly version?: string;
  /** Of the routes in use, for people: 16 hexadecimal digits. Read at each renewal. Default: none. */
  readonly routesHash?: () => string;
  /**
   * A new secret of this process, 32 to 64 random characters of base64url: it identifies the verifier to the authority,
   * which assigns an id. Called at the start, and again when the authority rejects the previous one.
   */
  readonly newClaim: () => string;
  readonly clock: Clock;
  readonly source: TokenSource;
  readonly feed: Feed;
  /** Prefix of the secrets. Default `lk`. */
  readonly prefix?: string;
  readonly limits?: Partial<VerifierLimits>;
  /** The authority ended this verifier's lease or rejected its id; the verifier continues with a new claim. */
  readonly onIdentityRefused?: (why: string) => void;
}

/** The present state, for metrics. */
export interface VerifierState {
  readonly leaseHeld: boolean;
  readonly leaseLeftMs: number;
  readonly entries: number;
  readonly misses: number;
  readonly fillsInFlight: number;
  readonly streams: number;
}

/**
 * Checks tokens from its own memory. Once an invalidation is confirmed, no check that starts later accepts what it
 * revoked, whatever happens to Redis, the token-service, this process or its clocks (docs: revocation).
 *
 * Time, the authority and the feed are passed in, and there is no randomness, so that the simulation can run this code.
 */
export class Verifier {
  readonly counters: Counters = newCounters();
  readonly #clock: Clock;
  readonly #feed: Feed;
  readonly #prefix: string;
  readonly #secretLength: number;
  readonly #time: Timekeeper;
  readonly #applied = new Applied();
  readonly #memory: Memory;
  readonly #lease: Lease;
  readonly #fills: Fills;
  readonly #streams: Streams;
  readonly #reader: FeedReader;
  readonly #tickets: Tickets;
  #unsubscribe: () => void = () => undefined;

  /** @throws TypeError when a limit is not a whole number from 1, or `fillsReservedForKnown` is not below `fillsMax`. */
  constructor(options: VerifierOptions) {
    const { name, version = '', newClaim, clock, source, feed, prefix = DEFAULT_PREFIX } = options;
    const limits = limitsOf(options.limits);
    const time = new Timekeeper(clock);
    const { counters } = this;
    this.#clock = clock;
    this.#time = time;
    this.#feed = feed;
    this.#prefix = prefix;
    this.#secretLength = secretLength(prefix);
    this.#memory = new Memory(limits, counters);
    this.#tickets = new Tickets(limits.entriesMax);
    const memory = this.#memory;
    const applied = this.#applied;
    const lease = new Lease({
      name,
      version,
      routesHash: options.routesHash,
      newClaim,
      clock,
      time,
      source,
      applied,
      limits,
      counters,
      apply: (invalidation, digest) => this.#apply(invalidation, digest),
      reset: () => this.#reset(),
      watermark: () => memory.watermark,
      confirm: (watermark) => memory.confirm(watermark),
      dropUnconfirmed: () => {
        applied.poisonAll();
        memory.dropUnconfirmed();
        this.#streams.recheckDropped();
      },
      onCursor: () => this.#streams.cutStale(),
      onRenewed: (sent) => {
        this.#reader.onRenewed(sent);
        feed.onRenewed?.();
      },
      onIdentityRefused: options.onIdentityRefused ?? (() => undefined),
    });
    this.#lease = lease;
    const isLeaseHeld = () => lease.held();
    const awaitRenewal = () => lease.awaitRenewal();
    const reset = () => this.#reset();
    const tickets = this.#tickets;
    const deps = { clock, source, memory, applied, tickets, limits, counters };
    this.#fills = new Fills({ ...deps, isLeaseHeld, awaitRenewal, reset });
    const resolve = (hash: string, address: string | undefined) => this.#fills.resolve(hash, address);
    this.#streams = new Streams({ clock, time, memory, lease, resolve, limits, counters });
    this.#reader = new FeedReader({
      clock,
      feed,
      lease,
      applied,
      limits,
      counters,
      apply: (invalidation, digest) => this.#apply(invalidation, digest),
      applyOld: (invalidation, digest) => {
        this.#apply({ ...invalidation, cut: false }, digest);
        this.#streams.applyOld(invalidation);
      },
      reset: () => {
        counters.resets++;
        this.#reset();
      },
    });
  }

  /** Assigned by the authority; undefined before the first renewal. It can change: do not depend on it. */
  get id(): string | undefined {
    return this.#lease.identity?.verifierId;
  }

  /**
   * Subscribes to the feed and takes a lease. Resolves when the first renewal has succeeded or failed; until a lease is
   * held every check is a lookup.
   */
  start(): Promise<void> {
    const lease = this.#lease;
    const applied = this.#applied;
    this.#unsubscribe = this.#feed.subscribe((text, renew) => this.#reader.read(text, renew), {
      get id() {
        return lease.identity?.verifierId;
      },
      get cursor() {
        return applied.cursor;
      },
      renew: () => lease.requestRenewal(),
    });
    return lease.start();
  }

  /** Stops the use of memory at once, cuts the streams, waits for a renewal in flight, and releases the lease. */
  async stop(): Promise<void> {
    const stopped = this.#lease.stop();
    this.#streams.cutAll('unavailable');
    await stopped;
    this.#unsubscribe();
  }

  /**
   * Whether a request with this secret is allowed now: at once from memory, else after a lookup. Never throws or rejects:
   * an unavailable authority is the denial `unavailable`, too many lookups in flight from the requirement's address the
   * denial `rate_limited`.
   */
  verify(secret: string, requirement: Requirement): Verdict | Promise<Verdict> {
    const remembered = this.recall(secret, requirement);
    if (remembered !== undefined) return remembered;
    // Remembered secrets are well-formed: the shape is inspected only before a lookup.
    const shape = inspect(secret, this.#prefix);
    if (shape !== 'ok') return this.#count(denied(shape));
    this.#lease.renewIfLapsed();
    return this.#fills
      .resolve(digestSecret(secret), requirement.ip)
      .then((result) => this.#count(evaluate(result, requirement, this.#clock.wallMs())));
  }

  /** The verdict of `verify` if that needs no lookup; undefined: the token is not in memory, or no lease is held. */
  recall(secret: string, requirement: Requirement): Verdict | undefined {
    if (secret.length !== this.#secretLength) return this.#count(denied('malformed'));
    const hash = digestSecret(secret);
    if (!this.#lease.held()) return undefined;
    // As `held` has just read the clocks: the entry, the lease and the expiry are compared with one moment.
    const { monotonicMs, wallMs } = this.#time;
    const remembered = this.#memory.find(hash, monotonicMs);
    if (remembered === undefined) return undefined;
    this.counters.memoryHits++;
    return this.#count(evaluate(remembered, requirement, wallMs));
  }

  /**
   * Watches an open stream of a request that `verify` has allowed; the function returned stops that. The stream is cut
   * when its token is revoked, disabled or expired, no longer meets the requirement, or can no longer be checked.
   */
  watch(secret: string, requirement: Requirement, stream: Stream): () => void {
    return this.#streams.open(digestSecret(secret), requirement, stream);
  }

  /**
   * Signs a batch of counts with this verifier's usage key and present id; undefined before the first lease. A batch that
   * is sent again unchanged counts once.
   */
  signBatch(batch: Omit<UsageBatch, 'verifier' | 'tickets'>): UsageBatchEvent | undefined {
    const { identity } = this.#lease;
    if (!identity) return undefined;
    const { verifierId: verifier, caller, usage } = identity;
    const tickets = this.#tickets.of(batch);
    return signUsageBatch(usage, caller, { verifier, ...batch, ...(tickets && { tickets }) });
  }

  state(): VerifierState {
    return {
      leaseHeld: this.#lease.held(),
      leaseLeftMs: this.#lease.leftMs(),
      entries: this.#memory.size,
      misses: this.#memory.misses,
      fillsInFlight: this.#fills.inFlight,
      streams: this.#streams.size,
    };
  }

  #count(verdict: Verdict): Verdict {
    this.counters.verdicts[verdict.allowed ? 'allowed' : verdict.reason]++;
    return verdict;
  }

  #apply(invalidation: Invalidation, digest: string): void {
    this.counters.invalidationsApplied++;
    this.#applied.add(invalidation, digest);
    this.#memory.apply(invalidation.kind, invalidation.subject);
    this.#streams.apply(invalidation);
  }

  #reset(): void {
    this.#applied.reset();
    this.#memory.reset();
    this.#streams.reset();
  }
}

function limitsOf(given: Partial<VerifierLimits> = {}): VerifierLimits {
  const limits = { ...DEFAULT_LIMITS, ...given };
  for (const [name, value] of Object.entries(limits)) {
    if (!Number.isInteger(value) || value < 1)
      throw new TypeError(`verifier limit ${name} must be a whole number from 1`);
  }
  if (limits.fillsReservedForKnown >= limits.fillsMax) {
    throw new TypeError('verifier limit fillsReservedForKnown must be below fillsMax');
  }
  return limits;
}
