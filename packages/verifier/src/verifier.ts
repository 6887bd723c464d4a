import { signUsageBatch, type UsageBatch, type UsageBatchEvent } from '@latchkey/contracts';
import { DEFAULT_PREFIX, digestSecret, inspect, secretLength } from '@latchkey/token-format';
import { Applied, type Fact } from './applied.js';
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
  /**
   * A new secret of this process, 32 to 64 random characters of base64url: the authority knows the verifier by it and
   * hands out its id. Called at the start, and again when the authority refuses the one before.
   */
  readonly newClaim: () => string;
  readonly clock: Clock;
  readonly source: TokenSource;
  readonly feed: Feed;
  /** Prefix of the secrets. Default `lk`. */
  readonly prefix?: string;
  readonly limits?: Partial<VerifierLimits>;
  /** The authority has ended this verifier's lease or gave its id to nobody; it goes on under another. */
  readonly onIdentityRefused?: (why: string) => void;
}

/** A look inside, for metrics. */
export interface VerifierState {
  readonly leaseHeld: boolean;
  readonly leaseLeftMs: number;
  readonly entries: number;
  readonly misses: number;
  readonly fillsInFlight: number;
  readonly streams: number;
}

/**
 * Answers checks from its own memory, and never from memory that a confirmed invalidation has overtaken: once an
 * invalidation is confirmed, no check that starts later accepts what it ended, whatever becomes of Redis, the
 * token-service, this process or its clocks (docs: revocation).
 *
 * It takes time, the authority and the feed from outside and has no randomness, so that a simulation can run this very
 * code.
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

  /** @throws TypeError when a limit is not a whole number from 1, or the reserve is not below the whole. */
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
      newClaim,
      clock,
      time,
      source,
      applied,
      limits,
      counters,
      apply: (fact, digest) => this.#apply(fact, digest),
      reset: () => this.#reset(),
      mark: () => memory.mark,
      vouch: (mark) => memory.vouch(mark),
      doubt: () => {
        applied.doubt();
        memory.doubt();
        this.#streams.doubt();
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
    const renewed = () => lease.renewed();
    const reset = () => this.#reset();
    const tickets = this.#tickets;
    const deps = { clock, source, memory, applied, tickets, limits, counters };
    this.#fills = new Fills({ ...deps, isLeaseHeld, renewed, reset });
    const resolve = (hash: string, address: string | undefined) => this.#fills.resolve(hash, address);
    this.#streams = new Streams({ clock, time, memory, lease, resolve, limits, counters });
    this.#reader = new FeedReader({
      clock,
      feed,
      lease,
      applied,
      limits,
      counters,
      apply: (fact, digest) => this.#apply(fact, digest),
      applyOld: (fact, digest) => {
        this.#apply({ ...fact, cut: false }, digest);
        this.#streams.repeat(fact);
      },
      reset: () => {
        counters.resets++;
        this.#reset();
      },
    });
  }

  /** As the authority handed it out; undefined before the first renewal. It may change: nothing should depend on it. */
  get id(): string | undefined {
    return this.#lease.identity?.verifierId;
  }

  /**
   * Listens to the feed and takes a lease. Resolves when the first renewal was answered or failed; until a lease is
   * held every check asks the authority.
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
      renew: () => lease.urge(),
    });
    return lease.start();
  }

  /** Stops answering from memory at once, cuts the streams, waits for a renewal in flight, gives the lease back. */
  async stop(): Promise<void> {
    const stopped = this.#lease.stop();
    this.#streams.cutAll('unavailable');
    await stopped;
    this.#unsubscribe();
  }

  /**
   * Whether a request that presents this secret may pass now. At once when memory can tell, else after a question to
   * the authority. Never throws or rejects: a dependency away is the denial `unavailable`, too many open questions from
   * the requirement's address the denial `rate_limited`.
   */
  verify(secret: string, requirement: Requirement): Verdict | Promise<Verdict> {
    // What memory knows was well-formed: the shape is looked at only where a question may follow.
    if (secret.length !== this.#secretLength) return this.#count(denied('malformed'));
    const hash = digestSecret(secret);
    if (this.#lease.held()) {
      // The clocks have just been read: the entry, the lease and the expiry are judged at one moment.
      const { monotonicMs, wallMs } = this.#time;
      const remembered = this.#memory.find(hash, monotonicMs);
      if (remembered !== undefined) {
        this.counters.memoryHits++;
        return this.#count(evaluate(remembered, requirement, wallMs));
      }
    }
    const shape = inspect(secret, this.#prefix);
    if (shape !== 'ok') return this.#count(denied(shape));
    this.#lease.hurry();
    return this.#fills
      .resolve(hash, requirement.ip)
      .then((answer) => this.#count(evaluate(answer, requirement, this.#clock.wallMs())));
  }

  /**
   * Watches an open stream of a request that `verify` has allowed, until the answer is called. The stream is cut when
   * its token ends (revoked, disabled, expired), is no longer allowed what was required, or can no longer be checked.
   */
  watch(secret: string, requirement: Requirement, stream: Stream): () => void {
    return this.#streams.open(digestSecret(secret), requirement, stream);
  }

  /**
   * Signs what was counted with this verifier's own usage key, under the id that it has now; undefined before the first
   * lease. What was signed stays as it is: sent again, it counts once.
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

  #apply(fact: Fact, digest: string): void {
    this.counters.invalidationsApplied++;
    this.#applied.add(fact, digest);
    this.#memory.apply(fact.kind, fact.subject);
    this.#streams.apply(fact);
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
