import {
  type InvalidationEvent,
  readInvalidation,
  signAcknowledgement,
  signUsageBatch,
  type UsageBatch,
  type UsageBatchEvent,
} from '@latchkey/contracts';
import { DEFAULT_PREFIX, digestSecret, inspect, secretLength } from '@latchkey/token-format';
import { Applied, type Fact } from './applied.js';
import { type Counters, newCounters } from './counters.js';
import { Fills } from './fills.js';
import { denied, judge } from './judge.js';
import { type Keys, Lease } from './lease.js';
import { DEFAULT_LIMITS, type VerifierLimits } from './limits.js';
import { Memory } from './memory.js';
import { Streams } from './streams.js';
import { Timekeeper } from './time.js';
import type { Clock, Feed, Requirement, Stream, TokenSource, Verdict } from './types.js';

/** Longest message of the feed that is looked at, in UTF-16 code units; a real one has about 400. */
const MESSAGE_LENGTH_MAX = 2_000;
/** Messages kept while the key that authenticates them is still on its way. */
const EARLY_MESSAGES_MAX = 256;

export interface VerifierOptions {
  /** A UUIDv7, new at every process start. */
  readonly id: string;
  /** For people. */
  readonly name: string;
  readonly clock: Clock;
  readonly source: TokenSource;
  readonly feed: Feed;
  /** Prefix of the secrets. Default `lk`. */
  readonly prefix?: string;
  readonly limits?: Partial<VerifierLimits>;
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
  readonly id: string;
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
  #early: string[] = [];
  #unsubscribe: () => void = () => undefined;

  /** @throws TypeError when a limit is not a whole number from 1, or the reserve is not below the whole. */
  constructor({ id, name, clock, source, feed, prefix = DEFAULT_PREFIX, limits: given }: VerifierOptions) {
    const limits = limitsOf(given);
    const time = new Timekeeper(clock);
    const { counters } = this;
    this.id = id;
    this.#clock = clock;
    this.#time = time;
    this.#feed = feed;
    this.#prefix = prefix;
    this.#secretLength = secretLength(prefix);
    this.#memory = new Memory(limits, counters);
    const memory = this.#memory;
    const applied = this.#applied;
    const lease = new Lease({
      id,
      name,
      clock,
      time,
      source,
      applied,
      limits,
      counters,
      apply: (fact) => this.#apply(fact),
      reset: () => this.#reset(),
      onCursor: () => this.#streams.cutStale(),
      onKeys: () => this.#readEarly(),
    });
    this.#lease = lease;
    const isLeaseHeld = () => lease.held();
    this.#fills = new Fills({ clock, source, memory, applied, isLeaseHeld, limits, counters });
    const resolve = (hash: string, address: string | undefined) => this.#fills.resolve(hash, address);
    this.#streams = new Streams({ clock, time, memory, lease, resolve, limits, counters });
  }

  /**
   * Listens to the feed and takes a lease. Resolves when the first renewal was answered or failed; until a lease is
   * held every check asks the authority.
   */
  start(): Promise<void> {
    this.#unsubscribe = this.#feed.subscribe((text) => this.#onMessage(text));
    return this.#lease.start();
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
        return this.#count(judge(remembered, requirement, wallMs));
      }
    }
    const shape = inspect(secret, this.#prefix);
    if (shape !== 'ok') return this.#count(denied(shape));
    this.#lease.hurry();
    return this.#fills
      .resolve(hash, requirement.ip)
      .then((answer) => this.#count(judge(answer, requirement, this.#clock.wallMs())));
  }

  /**
   * Watches an open stream of a request that `verify` has allowed, until the answer is called. The stream is cut when
   * its token ends (revoked, disabled, expired), is no longer allowed what was required, or can no longer be checked.
   */
  watch(secret: string, requirement: Requirement, stream: Stream): () => void {
    return this.#streams.open(digestSecret(secret), requirement, stream);
  }

  /** Signs what was counted with this verifier's own key; undefined before the first lease. */
  signBatch(batch: UsageBatch): UsageBatchEvent | undefined {
    const { keys } = this.#lease;
    return keys && signUsageBatch(keys.acknowledgements, batch);
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

  #onMessage(text: string): void {
    const { keys } = this.#lease;
    if (keys) this.#read(text, keys);
    else if (this.#early.length < EARLY_MESSAGES_MAX && text.length <= MESSAGE_LENGTH_MAX) this.#early.push(text);
    else this.counters.messagesDropped++;
  }

  #readEarly(): void {
    const early = this.#early;
    this.#early = [];
    for (const text of early) this.#onMessage(text);
  }

  #read(text: string, keys: Keys): void {
    const event = text.length <= MESSAGE_LENGTH_MAX ? readInvalidation(keys.feed, text) : undefined;
    if (!event) {
      this.counters.messagesDropped++;
      return;
    }
    if (this.#applied.includes(event.log, event.invalidation)) {
      this.counters.invalidationsRepeated++;
      this.#streams.repeat(event.invalidation);
    } else this.#apply(event.invalidation);
    this.#acknowledge(event, keys);
  }

  /** Only ever after the invalidation has been applied and its streams have been cut. */
  #acknowledge({ invalidation }: InvalidationEvent, keys: Keys): void {
    const text = JSON.stringify(signAcknowledgement(keys.acknowledgements, this.id, invalidation.id));
    this.#feed.acknowledge(text).then(
      () => this.counters.acknowledgements++,
      () => this.counters.acknowledgementsFailed++,
    );
  }

  #apply(fact: Fact): void {
    this.counters.invalidationsApplied++;
    this.#applied.add(fact);
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
