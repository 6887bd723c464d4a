import {
  type Cursor,
  digestOf,
  type FeedKey,
  feedKey,
  type Invalidation,
  type RenewResponse,
} from '@latchkey/contracts';
import { type Applied, kindOf } from './applied.js';
import type { Counters } from './counters.js';
import type { VerifierLimits } from './limits.js';
import { later, type Moment, type Timekeeper } from './time.js';
import { type Clock, RenewalRefused, type TokenSource } from './types.js';

/** Most public keys read from one renewal: the current one, the next, and a spare. */
const FEED_KEYS_MAX = 3;
/** Shortest time between renewals requested by messages, which an attacker can repeat without end. */
const REQUESTED_EVERY_MS = 1_000;
/** Shortest time between renewals until a cursor past an invalidation has been sent. */
const PAST_EVERY_MS = 25;

export interface LeaseDeps {
  readonly name: string;
  readonly version: string;
  /** For people; read at each renewal. */
  readonly routesHash: (() => string) | undefined;
  /** Random, 32 to 64 characters; called at the start and whenever the authority rejects the previous one. */
  readonly newClaim: () => string;
  readonly clock: Clock;
  readonly time: Timekeeper;
  readonly source: TokenSource;
  readonly applied: Applied;
  readonly limits: VerifierLimits;
  readonly counters: Counters;
  /** Drops what the invalidation names from memory. */
  readonly apply: (invalidation: Invalidation, digest: string) => void;
  /** Empties the memory and poisons every fill in flight. */
  readonly reset: () => void;
  /** Number of entries remembered so far: read when a renewal is sent. */
  readonly watermark: () => number;
  /** A renewal was accepted: it confirms entries remembered before its watermark. */
  readonly confirm: (watermark: number) => void;
  /** Drops entries remembered since the last confirmed watermark, and poisons every fill in flight. */
  readonly dropUnconfirmed: () => void;
  /** A cursor is about to be sent, which confirms that everything before it has been applied. */
  readonly onCursor: () => void;
  /** A renewal was accepted; its number is that of `sent` when it was sent. */
  readonly onRenewed: (sent: number) => void;
  /** The authority rejected the claim, and the verifier has made a new one. */
  readonly onIdentityRefused: (why: string) => void;
}

/** This verifier's identity at the authority, and its keys, from the last renewal. */
export interface Identity {
  readonly verifierId: string;
  readonly caller: string;
  readonly acknowledgements: Uint8Array;
  readonly usage: Uint8Array;
  /** Keys that can sign messages of the feed, by id. */
  readonly feed: ReadonlyMap<string, FeedKey>;
}

/** A renewal as it was sent. */
interface Sent {
  readonly sentAt: Moment;
  readonly cursor: Cursor | null;
  readonly watermark: number;
  readonly sent: number;
}

/** The right to check tokens from memory, renewed every third of its length. */
export class Lease {
  readonly #deps: LeaseDeps;
  #claim: string;
  #granted: { readonly sentAt: Moment; readonly ms: number } | undefined;
  #identity: Identity | undefined;
  /** From the last accepted renewal: shows the authority whether its history has forgotten that renewal. */
  #nonce = '';
  /** From the same renewal. Between two renewals of one history no data folder was restored. */
  #history = '';
  #feedKeys = new Map<string, FeedKey | undefined>();
  #renewal: Promise<void> | undefined;
  #sent = 0;
  #cancelTimer: () => void = () => undefined;
  #outcome: 'renewed' | 'failed' | 'refused' = 'renewed';
  #requested = false;
  #requestedAtMs = Number.NEGATIVE_INFINITY;
  /** Renewals are sent early until a cursor past this has been sent. */
  #past: { readonly log: string; readonly xid: bigint; readonly untilMs: number } | undefined;
  #lastSentAtMs = Number.NEGATIVE_INFINITY;
  #stopped = false;
  /** Callers of `awaitRenewal`, with the number of renewals sent before. */
  #waiting: { readonly sent: number; readonly resolve: () => void }[] = [];

  constructor(deps: LeaseDeps) {
    this.#deps = deps;
    this.#claim = deps.newClaim();
  }

  /** Whether checks can use the memory at this moment. */
  held(): boolean {
    return this.#granted !== undefined && this.#deps.time.elapsedMs(this.#granted.sentAt) < this.#granted.ms;
  }

  /** Undefined before the first renewal, and after the authority has rejected the previous identity. */
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

  /** When the lease last granted expires, on the clocks that are never stepped; undefined before the first. */
  get expiry(): Moment | undefined {
    return this.#granted && later(this.#granted.sentAt, this.#granted.ms);
  }

  /** Milliseconds until it expires; 0 without one. */
  leftMs(): number {
    const granted = this.#granted;
    return granted ? Math.max(0, granted.ms - this.#deps.time.elapsedMs(granted.sentAt)) : 0;
  }

  /** Resolves when the first renewal has succeeded or failed; renewals continue until `stop`. */
  start(): Promise<void> {
    return this.#renew();
  }

  /** Renews at once when a stepped clock has made the lease expire before its renewal was due. */
  renewIfLapsed(): void {
    const idle = !this.#stopped && !this.#renewal && this.#outcome === 'renewed';
    if (idle && this.#granted && !this.held()) void this.#renew();
  }

  /** Requests a renewal that is sent from now on: at once, but at most one a second for such requests. */
  requestRenewal(): void {
    if (this.#stopped || this.#requested) return;
    this.#requested = true;
    if (!this.#renewal && this.#sent > 0) this.#schedule();
  }

  /**
   * Confirms an applied invalidation by a cursor past it: the first renewal returns such a cursor, the next one sends it.
   * Gives up after a third of a lease, and leaves it to ordinary renewals: a long transaction can delay the cursor.
   */
  renewPast(log: string, xid: string): void {
    if (this.#stopped || !this.#granted) return;
    const before = this.#past?.log === log ? this.#past.xid : 0n;
    const untilMs = this.#deps.clock.monotonicMs() + this.#granted.ms / 3;
    this.#past = { log, xid: BigInt(xid) > before ? BigInt(xid) : before, untilMs };
    if (!this.#renewal) this.#schedule();
  }

  /** Requests a renewal; resolves when one sent from now on has succeeded or failed, or on `stop`. */
  awaitRenewal(): Promise<void> {
    if (this.#stopped) return Promise.resolve();
    this.requestRenewal();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push({ sent: this.#sent, resolve });
    return promise;
  }

  /** Stops the use of memory at once; then waits for the renewal in flight and releases the lease. */
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
      counters.releasesFailed++; // the lease expires by itself
    }
  }

  #renew(): Promise<void> {
    this.#cancelTimer();
    this.#renewal = this.#sendRenewal().finally(() => {
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
      delayMs = Math.max(0, this.#granted.ms / 3 - time.elapsedMs(this.#granted.sentAt));
    const requestedMs = Math.max(0, this.#requestedAtMs + REQUESTED_EVERY_MS - clock.monotonicMs());
    const pastMs = Math.max(0, this.#lastSentAtMs + PAST_EVERY_MS - clock.monotonicMs());
    if (this.#past && this.#outcome === 'renewed') delayMs = Math.min(delayMs, pastMs);
    const early = this.#requested && requestedMs < delayMs;
    this.#cancelTimer = clock.after(early ? requestedMs : delayMs, () => {
      if (early) counters.renewalsUrged++;
      void this.#renew();
    });
  }

  async #sendRenewal(): Promise<void> {
    const { name, version, routesHash, clock, time, source, applied, counters, onCursor } = this.#deps;
    const sentAt = time.note();
    const watermark = this.#deps.watermark();
    const { cursor } = applied;
    if (cursor) onCursor();
    this.#lastSentAtMs = clock.monotonicMs();
    if (this.#requested) this.#requestedAtMs = clock.monotonicMs();
    this.#requested = false;
    this.#outcome = 'failed';
    const sent = ++this.#sent;
    try {
      const response = await source.renew({
        verifierId: '',
        name,
        cursor,
        claim: this.#claim,
        version,
        nonce: this.#nonce,
        ...(routesHash && { routesHash: routesHash() }),
      });
      // Read while stopping too: the lease granted is released by its id.
      if (this.#stopped) this.#identify(response);
      else if (this.#accept(response, { sentAt, cursor, watermark, sent })) {
        this.#outcome = 'renewed';
        this.#onCursorSent(cursor);
      }
    } catch (error) {
      if (error instanceof RenewalRefused) this.#onRefused(error);
      else counters.renewalsFailed++;
    }
  }

  #onCursorSent(cursor: Cursor | null): void {
    if (!this.#past) return;
    const { log, xid, untilMs } = this.#past;
    // With another log there is nothing to wait for.
    const isPast = cursor !== null && (cursor.log !== log || BigInt(cursor.xid) > xid);
    if (isPast || this.#deps.clock.monotonicMs() >= untilMs) this.#past = undefined;
  }

  /** False when the response arrived after the expiry of the lease that it grants, or grants none. */
  #accept(response: RenewResponse, { sentAt, cursor: sentCursor, watermark, sent }: Sent): boolean {
    const { time, applied, counters, reset, confirm, dropUnconfirmed, onRenewed } = this.#deps;
    const { leaseMs, cursor, verifierId, history } = response;
    if (!cursor || !verifierId || !(time.elapsedMs(sentAt) < leaseMs)) {
      counters.renewalsLate++;
      return false;
    }
    const received = response.invalidations.map((one) => ({
      invalidation: { ...one, kind: kindOf(one.kind) },
      digest: digestOf(cursor.log, one),
    }));
    const contradicted = received.some(
      ({ invalidation, digest }) => applied.known(invalidation.id, digest) === 'other',
    );
    const isContinued = sentCursor?.log === cursor.log && applied.cursor?.log === cursor.log;
    if (response.reset || !isContinued || contradicted) {
      counters.resets++;
      reset();
    } else if (history !== this.#history) {
      // The nonce confirms entries looked up before the renewal that returned it, and none since.
      counters.doubts++;
      dropUnconfirmed();
    }
    confirm(watermark);
    this.#history = history;
    for (const { invalidation, digest } of received) this.#applyNew(cursor.log, invalidation, digest);
    applied.advance(cursor);
    this.#identify(response);
    this.#granted = { sentAt, ms: leaseMs };
    this.#nonce = response.nonce;
    counters.renewals++;
    onRenewed(sent);
    return true;
  }

  #applyNew(log: string, invalidation: Invalidation, digest: string): void {
    const { applied, counters, apply } = this.#deps;
    if (applied.known(invalidation.id, digest) === 'same' || applied.isBelowCursor(log, invalidation.xid))
      counters.invalidationsRepeated++;
    else apply(invalidation, digest);
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

  /** The use of memory ends at once when the authority has ended this verifier's lease. */
  #onRefused({ reason, message }: RenewalRefused): void {
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
