import { type Cursor, digestOf, type FeedKey, feedKey, type RenewResponse } from '@latchkey/contracts';
import { type Applied, type Fact, kindOf } from './applied.js';
import type { Counters } from './counters.js';
import type { VerifierLimits } from './limits.js';
import { later, type Moment, type Timekeeper } from './time.js';
import { type Clock, RenewalRefused, type TokenSource } from './types.js';

/** Public keys of one renewal that are looked at: the current one, the next, and room for one more. */
const FEED_KEYS_MAX = 3;
/** A message can hurry on a renewal this often at most: somebody may repeat such messages without end. */
const URGED_EVERY_MS = 1_000;
/** How soon one renewal follows another while a cursor is to be sent that has passed something. */
const PAST_EVERY_MS = 25;

export interface LeaseDeps {
  readonly name: string;
  readonly version: string;
  /** Random, 32 to 64 characters; called at the start and whenever the authority refuses the one before. */
  readonly newClaim: () => string;
  readonly clock: Clock;
  readonly time: Timekeeper;
  readonly source: TokenSource;
  readonly applied: Applied;
  readonly limits: VerifierLimits;
  readonly counters: Counters;
  /** Overtakes what the invalidation names. */
  readonly apply: (fact: Fact, digest: string) => void;
  /** Empties the memory and poisons every fill in flight. */
  readonly reset: () => void;
  /** How far memory has come: taken when a renewal is sent. */
  readonly mark: () => number;
  /** A renewal was accepted: it vouches for what was remembered before its mark. */
  readonly vouch: (mark: number) => void;
  /** Overtakes what was remembered since the last mark that was vouched for, and poisons every fill in flight. */
  readonly doubt: () => void;
  /** A cursor is about to be sent, which says that everything before it has been applied. */
  readonly onCursor: () => void;
  /** A renewal has been taken; its number is that of `sent` when it was sent. */
  readonly onRenewed: (sent: number) => void;
  /** The authority has refused the claim, and a new one is taken. */
  readonly onIdentityRefused: (why: string) => void;
}

/** Whom this verifier is to the authority, and its keys: as the last renewal said. */
export interface Identity {
  readonly verifierId: string;
  readonly caller: string;
  readonly acknowledgements: Uint8Array;
  readonly usage: Uint8Array;
  /** Keys that messages of the feed may be signed by, by their ids. */
  readonly feed: ReadonlyMap<string, FeedKey>;
}

/** A renewal as it was sent. */
interface Sent {
  readonly asked: Moment;
  readonly cursor: Cursor | null;
  /** How far memory had come. */
  readonly marked: number;
  readonly sent: number;
}

/** The right to answer from memory, renewed every third of its length. */
export class Lease {
  readonly #deps: LeaseDeps;
  #claim: string;
  #granted: { readonly asked: Moment; readonly ms: number } | undefined;
  #identity: Identity | undefined;
  /** As given with the last renewal that was taken: by it the authority knows whether its history has forgotten any. */
  #nonce = '';
  /** As told with it. Between two renewals of one history nothing can have been put back. */
  #history = '';
  #feedKeys = new Map<string, FeedKey | undefined>();
  #renewal: Promise<void> | undefined;
  #sent = 0;
  #cancelTimer: () => void = () => undefined;
  #outcome: 'renewed' | 'failed' | 'refused' = 'renewed';
  #urged = false;
  #urgedAtMs = Number.NEGATIVE_INFINITY;
  /** What a cursor is to be sent past, with renewals hurried on until then. */
  #past: { readonly log: string; readonly xid: bigint; readonly untilMs: number } | undefined;
  #askedAtMs = Number.NEGATIVE_INFINITY;
  #stopped = false;
  /** Those who wait for the end of a renewal sent later than so many. */
  #waiting: { readonly sent: number; readonly resolve: () => void }[] = [];

  constructor(deps: LeaseDeps) {
    this.#deps = deps;
    this.#claim = deps.newClaim();
  }

  /** Whether memory may be answered from at this very moment. */
  held(): boolean {
    return this.#granted !== undefined && this.#deps.time.elapsedMs(this.#granted.asked) < this.#granted.ms;
  }

  /** Undefined before the first renewal, and after the authority has refused the one before. */
  get identity(): Identity | undefined {
    return this.#identity;
  }

  /** Renewals sent so far. */
  get sent(): number {
    return this.#sent;
  }

  /** Length of the lease last granted; undefined before the first. */
  get lengthMs(): number | undefined {
    return this.#granted?.ms;
  }

  /** Until when the lease last granted runs, on the clocks that nobody steps; undefined before the first. */
  get end(): Moment | undefined {
    return this.#granted && later(this.#granted.asked, this.#granted.ms);
  }

  /** Milliseconds until it lapses; 0 without one. */
  leftMs(): number {
    const granted = this.#granted;
    return granted ? Math.max(0, granted.ms - this.#deps.time.elapsedMs(granted.asked)) : 0;
  }

  /** Resolves when the first renewal has been answered or has failed; renewing goes on until `stop`. */
  start(): Promise<void> {
    return this.#renew();
  }

  /** Renews at once when a clock has ended the lease before its renewal was due. */
  hurry(): void {
    const idle = !this.#stopped && !this.#renewal && this.#outcome === 'renewed';
    if (idle && this.#granted && !this.held()) void this.#renew();
  }

  /** What was heard needs a renewal that is sent from now on: at once, but at most once a second for this reason. */
  urge(): void {
    if (this.#stopped || this.#urged) return;
    this.#urged = true;
    if (!this.#renewal && this.#sent > 0) this.#schedule();
  }

  /**
   * Confirms what has been applied by a cursor past it: the first renewal brings such a cursor, the next one sends it.
   * Gives up after a third of a lease, when ordinary renewals have gone on: a long transaction may hold the cursor back.
   */
  renewPast(log: string, xid: string): void {
    if (this.#stopped || !this.#granted) return;
    const before = this.#past?.log === log ? this.#past.xid : 0n;
    const untilMs = this.#deps.clock.monotonicMs() + this.#granted.ms / 3;
    this.#past = { log, xid: BigInt(xid) > before ? BigInt(xid) : before, untilMs };
    if (!this.#renewal) this.#schedule();
  }

  /** Urges a renewal; resolves when one sent from now on has ended, well or not, or when renewing stops. */
  renewed(): Promise<void> {
    if (this.#stopped) return Promise.resolve();
    this.urge();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push({ sent: this.#sent, resolve });
    return promise;
  }

  /** Stops answering from memory at once; then waits for the renewal in flight and gives the lease back. */
  async stop(): Promise<void> {
    const { source, counters } = this.#deps;
    this.#stopped = true;
    this.#granted = undefined;
    this.#cancelTimer();
    await this.#renewal;
    for (const { resolve } of this.#waiting.splice(0)) resolve();
    if (!this.#identity) return;
    try {
      await source.release({ verifierId: this.#identity.verifierId, claim: this.#claim });
    } catch {
      counters.releasesFailed++; // it lapses by itself
    }
  }

  #renew(): Promise<void> {
    this.#cancelTimer();
    this.#renewal = this.#ask().finally(() => {
      this.#renewal = undefined;
      const sent = this.#sent;
      for (const one of this.#waiting) if (one.sent < sent) one.resolve();
      this.#waiting = this.#waiting.filter((one) => one.sent >= sent);
      if (!this.#stopped) this.#schedule();
    });
    return this.#renewal;
  }

  #schedule(): void {
    const { clock, time, limits, counters } = this.#deps;
    this.#cancelTimer();
    let delayMs = limits.renewRetryMs;
    if (this.#outcome === 'refused') delayMs = limits.refusedRetryMs;
    else if (this.#outcome === 'renewed' && this.#granted)
      delayMs = Math.max(0, this.#granted.ms / 3 - time.elapsedMs(this.#granted.asked));
    const urgedMs = Math.max(0, this.#urgedAtMs + URGED_EVERY_MS - clock.monotonicMs());
    const pastMs = Math.max(0, this.#askedAtMs + PAST_EVERY_MS - clock.monotonicMs());
    if (this.#past && this.#outcome === 'renewed') delayMs = Math.min(delayMs, pastMs);
    const hurried = this.#urged && urgedMs < delayMs;
    this.#cancelTimer = clock.after(hurried ? urgedMs : delayMs, () => {
      if (hurried) counters.renewalsUrged++;
      void this.#renew();
    });
  }

  async #ask(): Promise<void> {
    const { name, version, clock, time, source, applied, counters, mark, onCursor } = this.#deps;
    const asked = time.note();
    const marked = mark();
    const { cursor } = applied;
    if (cursor) onCursor();
    this.#askedAtMs = clock.monotonicMs();
    if (this.#urged) this.#urgedAtMs = clock.monotonicMs();
    this.#urged = false;
    this.#outcome = 'failed';
    const sent = ++this.#sent;
    try {
      const answer = await source.renew({
        verifierId: '',
        name,
        cursor,
        claim: this.#claim,
        version,
        nonce: this.#nonce,
      });
      // Kept while stopping too: what was granted is given back by its id.
      if (this.#stopped) this.#identify(answer);
      else if (this.#accept(answer, { asked, cursor, marked, sent })) {
        this.#outcome = 'renewed';
        this.#hasSent(cursor);
      }
    } catch (error) {
      if (error instanceof RenewalRefused) this.#refused(error);
      else counters.renewalsFailed++;
    }
  }

  #hasSent(cursor: Cursor | null): void {
    if (!this.#past) return;
    const { log, xid, untilMs } = this.#past;
    // In another log nothing of this one is waited for.
    const isPast = cursor !== null && (cursor.log !== log || BigInt(cursor.xid) > xid);
    if (isPast || this.#deps.clock.monotonicMs() >= untilMs) this.#past = undefined;
  }

  /** False when the answer came after the end of the lease that it grants, or grants none. */
  #accept(answer: RenewResponse, { asked, cursor: sentCursor, marked, sent }: Sent): boolean {
    const { time, applied, counters, reset, vouch, doubt, onRenewed } = this.#deps;
    const { leaseMs, cursor, verifierId, history } = answer;
    if (!cursor || !verifierId || !(time.elapsedMs(asked) < leaseMs)) {
      counters.renewalsLate++;
      return false;
    }
    const facts = answer.invalidations.map((invalidation) => ({
      fact: { ...invalidation, kind: kindOf(invalidation.kind) },
      digest: digestOf(cursor.log, invalidation),
    }));
    const contradicted = facts.some(({ fact, digest }) => applied.known(fact.id, digest) === 'other');
    const isContinued = sentCursor?.log === cursor.log && applied.cursor?.log === cursor.log;
    if (answer.reset || !isContinued || contradicted) {
      counters.resets++;
      reset();
    } else if (history !== this.#history) {
      // The nonce vouches for what was looked up before the renewal that it came with, and for nothing since.
      counters.doubts++;
      doubt();
    }
    vouch(marked);
    this.#history = history;
    for (const { fact, digest } of facts) this.#applyNew(cursor.log, fact, digest);
    applied.advance(cursor);
    this.#identify(answer);
    this.#granted = { asked, ms: leaseMs };
    this.#nonce = answer.nonce;
    counters.renewals++;
    onRenewed(sent);
    return true;
  }

  #applyNew(log: string, fact: Fact, digest: string): void {
    const { applied, counters, apply } = this.#deps;
    if (applied.known(fact.id, digest) === 'same' || applied.isBelowCursor(log, fact.xid))
      counters.invalidationsRepeated++;
    else apply(fact, digest);
  }

  #identify({ verifierId, caller, ackKey, usageKey, feedKeys }: RenewResponse): void {
    if (this.#identity && this.#identity.verifierId !== verifierId) this.#deps.counters.identitiesTaken++;
    const known = this.#feedKeys;
    this.#feedKeys = new Map();
    const feed = new Map<string, FeedKey>();
    for (const bytes of feedKeys.slice(0, FEED_KEYS_MAX)) {
      const text = Buffer.from(bytes).toString('base64');
      const key = known.has(text) ? known.get(text) : feedKey(bytes);
      this.#feedKeys.set(text, key);
      if (key) feed.set(key.id, key);
    }
    this.#identity = { verifierId, caller, acknowledgements: ackKey, usage: usageKey, feed };
  }

  /** Answering from memory ends at once where the authority has ended this verifier's lease. */
  #refused({ reason, message }: RenewalRefused): void {
    const { counters, newClaim, reset, onIdentityRefused } = this.#deps;
    counters.renewalsRefused++;
    if (reason === 'later') {
      this.#outcome = 'refused';
      return;
    }
    this.#granted = undefined;
    this.#identity = undefined;
    this.#nonce = '';
    this.#claim = newClaim();
    counters.identitiesTaken++;
    reset();
    onIdentityRefused(message);
  }
}
