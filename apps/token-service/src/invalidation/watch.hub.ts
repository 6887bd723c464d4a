import {
  ACKNOWLEDGEMENT_LENGTH_MAX,
  digestOf,
  type FeedKey,
  feedKey,
  INVALIDATION_EVENT_LENGTH_MAX,
  INVALIDATIONS_PER_EVENT_MAX,
  type Invalidation,
  type InvalidationEvent,
  parseAcknowledgement,
  parseInvalidationEvent,
  signInvalidations,
  verifyInvalidationEvent,
} from '@latchkey/contracts';
import { Budget } from '@latchkey/verifier';
import type { FeedKeys } from './feed-keys.js';
import type { InvalidationLog } from './log.js';
import type { InvalidationStore, WaitClock } from './types.js';
import { CLOSING, OPENED, RESET, type WatchStream } from './watch.stream.js';

/** Open streams of one holder, at one replica; a holder has no more leases. */
export const HOLDER_STREAMS_MAX = 64;
/** Calls of one holder at one replica, including those that have not sent their first message or are still closing. */
const HOLDER_CALLS_MAX = 2 * HOLDER_STREAMS_MAX;
const CALLS_MAX = 4_096;
/** How often the log is read for what Redis has not delivered; and while Redis is known to be unavailable. */
const POLL_MS = 1_000;
const POLL_WITHOUT_REDIS_MS = 100;
/** Invalidations of one read; a verifier that is further behind renews, which is cheaper. */
const READ_MAX = 1_000;
/** Invalidations remembered as sent, so that they are not sent again from the log. */
const SENT_MAX = 10_000;
/** How often streams whose lease is gone or whose token has expired are closed. */
const SWEEP_MS = 1_000;
/** Messages from Redis whose signatures are checked per second; what is dropped is read from the log. */
const SIGNATURES_PER_SECOND_MAX = 500;
/** Own messages that Redis has not delivered back yet. */
const ECHOES_MAX = 1_000;

export type WatchRejection = 'too_many' | 'no_lease' | 'foreign' | 'stopping';

export interface WatchHubDeps {
  readonly store: Pick<InvalidationStore, 'onOneConnection'>;
  readonly log: InvalidationLog;
  readonly feedKeys: Pick<FeedKeys, 'signer' | 'publicKeys'>;
  readonly clock: WaitClock;
  /** Whether Redis cannot deliver messages now. */
  readonly isUnavailable: () => boolean;
  /** Caller ids, by verifier, of those of these verifiers that have a renewable lease. */
  readonly leaseCallers: (verifierIds: readonly string[]) => Promise<ReadonlyMap<string, string>>;
  /** Forwards an acknowledgement to the waits for it, here and at other replicas. */
  readonly onAcknowledgement: (text: string) => void;
}

/**
 * The streams of this replica. Each receives what is published here, what Redis delivers, and what only the log contains;
 * its acknowledgements are forwarded. None of it confirms anything by itself: streams are as untrusted as Redis.
 */
export class WatchHub {
  readonly #deps: WatchHubDeps;
  /** By verifier. */
  readonly #streams = new Map<string, WatchStream>();
  readonly #calls = new Map<string, number>();
  readonly #keys: ReadonlyMap<string, FeedKey>;
  readonly #sent = new Set<string>();
  readonly #echoes = new Set<string>();
  #allCalls = 0;
  /** Where the unsent part of the log begins; undefined while there are no streams. */
  #cursor: { readonly log: string; readonly xid: string } | undefined;
  #following: Promise<void> | undefined;
  #cancelPoll: () => void = () => undefined;
  #cancelSweep: () => void = () => undefined;
  readonly #signatures: Budget;
  #stopping = false;
  #onEmpty: () => void = () => undefined;
  readonly counters = {
    opened: 0,
    refused: 0,
    ended: 0,
    forwarded: 0,
    fromLog: 0,
    resets: 0,
    acknowledgements: 0,
    acknowledgementsDropped: 0,
    messagesDropped: 0,
    readingsFailed: 0,
    relaysFailed: 0,
  };

  constructor(deps: WatchHubDeps) {
    this.#deps = deps;
    const keys = deps.feedKeys.publicKeys.map(feedKey).filter((key) => key !== undefined);
    this.#keys = new Map(keys.map((key) => [key.id, key]));
    this.#signatures = new Budget(deps.clock, SIGNATURES_PER_SECOND_MAX);
  }

  get open(): number {
    return this.#streams.size;
  }

  /**
   * Counts a call before its verifier is known.
   * @returns a function that ends the count; or why the call is refused
   */
  admit(holder: string): (() => void) | WatchRejection {
    if (this.#stopping) return 'stopping';
    const calls = this.#calls.get(holder) ?? 0;
    if (calls >= HOLDER_CALLS_MAX || this.#allCalls >= CALLS_MAX) {
      this.counters.refused++;
      return 'too_many';
    }
    this.#calls.set(holder, calls + 1);
    this.#allCalls++;
    let counted = true;
    return () => {
      if (!counted) return;
      counted = false;
      this.#allCalls--;
      const left = this.#calls.get(holder)! - 1;
      if (left > 0) this.#calls.set(holder, left);
      else this.#calls.delete(holder);
      if (this.#allCalls === 0) this.#onEmpty();
    };
  }

  /**
   * Opens a stream: it receives what the log contains from its cursor on, then everything new. An older stream of the same
   * verifier at this replica is closed.
   * @param cursor how far the verifier has applied the log
   * @throws what the store throws
   */
  async start(stream: WatchStream, cursor: { log: string; xid: string } | null): Promise<WatchRejection | undefined> {
    const { verifierId } = stream;
    const leaseCaller = (await this.#deps.leaseCallers([verifierId])).get(verifierId);
    const rejection = this.#rejection(stream, leaseCaller);
    if (rejection) {
      this.counters.refused++;
      return rejection;
    }
    const old = this.#streams.get(verifierId);
    this.#streams.set(verifierId, stream);
    try {
      // Subscribed first, then read: nothing is missed between.
      await this.#follow();
      const { invalidations, reset, log } = await this.#deps.store.onOneConnection(async (here) => {
        const since = await this.#deps.log.since(here, cursor, false, null);
        return { ...since, log: since.cursor.log };
      });
      if (stream.ended) return undefined;
      stream.send(OPENED);
      if (reset || invalidations.length > READ_MAX) this.#reset(stream);
      else
        for (const event of this.#sign(log, invalidations)) this.#sendTo(stream, JSON.stringify(event), event, false);
    } catch (error) {
      if (!old || old.ended || this.#streams.get(verifierId) !== stream) this.remove(stream);
      else {
        stream.close();
        this.#streams.set(verifierId, old);
      }
      throw error;
    }
    old?.end('replaced');
    this.counters.opened++;
    // The token may have been revoked before the stream was registered.
    stream.check([]);
    return undefined;
  }

  remove(stream: WatchStream): void {
    stream.close();
    if (this.#streams.get(stream.verifierId) !== stream) return;
    this.#streams.delete(stream.verifierId);
    this.counters.ended++;
    if (this.#streams.size > 0) return;
    this.#cancelPoll();
    this.#cancelSweep();
    this.#cursor = undefined;
    this.#following = undefined;
    this.#sent.clear();
  }

  /** A message that this replica has just published. */
  publish(text: string): void {
    if (this.#streams.size === 0) return;
    const event = parseInvalidationEvent(text);
    if (!event) return;
    if (this.#echoes.size >= ECHOES_MAX) this.#echoes.clear();
    this.#echoes.add(text);
    this.#forward(text, event, false);
  }

  /** A message received from Redis, from any sender. */
  receive(text: string): void {
    if (this.#streams.size === 0 || this.#echoes.delete(text)) return;
    const event = this.#authentic(text);
    if (event) this.#forward(text, event, false);
    else this.counters.messagesDropped++;
  }

  /** An acknowledgement received on a stream. Its proof is verified by the wait for it. */
  acknowledge(stream: WatchStream, text: string): void {
    const event =
      stream.canAcknowledge() && text.length <= ACKNOWLEDGEMENT_LENGTH_MAX ? parseAcknowledgement(text) : undefined;
    if (event?.verifier !== stream.verifierId) {
      this.counters.acknowledgementsDropped++;
      return;
    }
    this.counters.acknowledgements++;
    this.#deps.onAcknowledgement(text);
    stream.onAcknowledged(event.digests);
  }

  /** Notifies every stream that this replica stops; resolves when all calls have ended, after `ms` at the latest. */
  async stop(ms: number): Promise<void> {
    this.#stopping = true;
    for (const stream of this.#streams.values()) stream.send(CLOSING);
    if (this.#allCalls > 0) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#onEmpty = resolve;
      const cancel = this.#deps.clock.after(ms, resolve);
      await promise;
      cancel();
    }
    for (const stream of [...this.#streams.values()]) stream.end('stopped');
    this.#cancelPoll();
    this.#cancelSweep();
  }

  #rejection({ verifierId, caller }: WatchStream, leaseCaller: string | undefined): WatchRejection | undefined {
    if (this.#stopping) return 'stopping';
    if (leaseCaller === undefined) return 'no_lease';
    if (leaseCaller !== caller.id) return 'foreign';
    if (caller.firstParty || this.#streams.has(verifierId)) return undefined;
    let own = 0;
    for (const one of this.#streams.values()) if (one.caller.holder === caller.holder) own++;
    return own >= HOLDER_STREAMS_MAX ? 'too_many' : undefined;
  }

  #authentic(text: string): InvalidationEvent | undefined {
    if (text.length > INVALIDATION_EVENT_LENGTH_MAX || !this.#signatures.take()) return undefined;
    const event = parseInvalidationEvent(text);
    const key = event && this.#keys.get(event.key);
    if (!key) return undefined;
    return verifyInvalidationEvent(key, event) ? event : undefined;
  }

  /** @param renew whether acknowledgements may not reach the waits for them */
  #forward(text: string, event: InvalidationEvent, renew: boolean): void {
    for (const { id } of event.invalidations) {
      this.#sent.add(id);
      if (this.#sent.size > SENT_MAX) this.#sent.delete(this.#sent.values().next().value!);
    }
    this.counters.forwarded++;
    for (const stream of this.#streams.values()) this.#sendTo(stream, text, event, renew);
  }

  #sendTo(stream: WatchStream, text: string, event: InvalidationEvent, renew: boolean): void {
    if (!stream.send({ message: text, renew, closing: false })) this.counters.resets++;
    const touching = event.invalidations.filter((invalidation) => touches(invalidation, stream));
    if (touching.length > 0) stream.check(touching.map((invalidation) => digestOf(event.log, invalidation)));
  }

  #reset(stream: WatchStream): void {
    this.counters.resets++;
    stream.send(RESET);
  }

  /** Starts polling the log, once there is a stream. */
  #follow(): Promise<void> {
    this.#following ??= this.#begin().catch((error: unknown) => {
      this.#following = undefined;
      throw error;
    });
    return this.#following;
  }

  async #begin(): Promise<void> {
    const { xmin: xid, log } = await this.#read(null, 0);
    this.#cursor = { log, xid };
    this.#pollLater();
    this.#sweepLater();
  }

  #read(fromXid: string | null, limit: number) {
    return this.#deps.store.onOneConnection((here) => here.readLog(fromXid, limit));
  }

  #pollLater(): void {
    this.#cancelPoll();
    if (this.#stopping || this.#streams.size === 0) return;
    // Short steps, so that an outage of Redis is noticed soon.
    let leftMs = POLL_MS;
    const step = () => {
      leftMs -= POLL_WITHOUT_REDIS_MS;
      if (leftMs <= 0 || this.#deps.isUnavailable()) void this.#poll();
      else this.#cancelPoll = this.#deps.clock.after(POLL_WITHOUT_REDIS_MS, step);
    };
    this.#cancelPoll = this.#deps.clock.after(POLL_WITHOUT_REDIS_MS, step);
  }

  /** Forwards what the log contains and has not been received otherwise. */
  async #poll(): Promise<void> {
    const from = this.#cursor;
    if (!from) return;
    try {
      const { log, xmin: xid, invalidations } = await this.#read(from.xid, READ_MAX);
      if (this.#cursor !== from) return;
      this.#cursor = { log, xid };
      if (log !== from.log || invalidations.length > READ_MAX) {
        for (const stream of this.#streams.values()) this.#reset(stream);
      } else {
        const missed = invalidations.filter(({ id }) => !this.#sent.has(id));
        this.counters.fromLog += missed.length;
        for (const event of this.#sign(log, missed)) this.#forward(JSON.stringify(event), event, true);
      }
    } catch {
      this.counters.readingsFailed++; // the next poll reads it
    }
    this.#pollLater();
  }

  #sign(log: string, invalidations: readonly Invalidation[]): InvalidationEvent[] {
    const { signer } = this.#deps.feedKeys;
    const events: InvalidationEvent[] = [];
    for (let at = 0; at < invalidations.length; at += INVALIDATIONS_PER_EVENT_MAX)
      events.push(signInvalidations(signer, log, invalidations.slice(at, at + INVALIDATIONS_PER_EVENT_MAX)));
    return events;
  }

  #sweepLater(): void {
    this.#cancelSweep();
    if (this.#stopping || this.#streams.size === 0) return;
    this.#cancelSweep = this.#deps.clock.after(SWEEP_MS, () => void this.#sweep());
  }

  async #sweep(): Promise<void> {
    const { clock, leaseCallers } = this.#deps;
    for (const stream of [...this.#streams.values()])
      if (stream.expiresAtMs !== 0 && clock.wallMs() >= stream.expiresAtMs) stream.end('rejected');
    const streams = [...this.#streams.values()];
    try {
      const callers = await leaseCallers(streams.map(({ verifierId }) => verifierId));
      for (const stream of streams) if (callers.get(stream.verifierId) !== stream.caller.id) stream.end('no_lease');
    } catch {
      this.counters.readingsFailed++; // no lease is granted either while PostgreSQL is unavailable
    }
    this.#sweepLater();
  }
}

/** Whether the caller of a stream can have lost its token or its owner by this invalidation. */
function touches({ kind, subject }: Invalidation, { caller: { token } }: WatchStream): boolean {
  if (!token) return false;
  switch (kind) {
    case 'token':
      return token.id === subject || token.ancestors.includes(subject);
    case 'owner':
    case 'project':
      return token.ownerId === subject;
    case 'everything':
      return true;
    case 'misses':
      return false;
  }
}
