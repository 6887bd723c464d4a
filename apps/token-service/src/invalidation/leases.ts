import { feedKey, type RenewRequest, type RenewResponse, verifierKey } from '@latchkey/contracts';
import type { InvalidationLog } from './log.js';
import { type InvalidationStore, type JudgeClock, lapsedAfterMs } from './types.js';

/** Leases that one caller may hold, outside the first-party services. */
export const CALLER_LEASES_MAX = 64;
const NAME_LENGTH_MAX = 100;
const ID_PATTERN = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const XID_PATTERN = /^\d{1,20}$/;
const XID_MAX = 2n ** 64n - 1n;

/** Who calls: the first-party services together, or one token. */
export interface LeaseCaller {
  /** Names the caller for good, `first-party` or `token:<id>`. */
  readonly id: string;
  readonly firstParty: boolean;
}

/** A lease was not granted; says nothing about any token. */
export class LeaseRefused extends Error {
  override name = 'LeaseRefused';
  constructor(
    readonly reason: 'invalid' | 'foreign' | 'too_many',
    message: string,
  ) {
    super(message);
  }
}

export interface LeasesParts {
  readonly store: InvalidationStore;
  readonly log: InvalidationLog;
  readonly clock: JudgeClock;
  readonly leaseMs: number;
  readonly eventsSecret: Uint8Array;
}

/** Grants leases, and judges which are dead. */
export class Leases {
  readonly #parts: LeasesParts;
  readonly #feedKey: Uint8Array;
  /** The renewals that this process has watched, with when it first saw them. */
  #watched = new Map<string, { renewal: string; sinceMs: number }>();
  readonly counters = { renewed: 0, released: 0, refused: 0, judgedDead: 0 };

  constructor(parts: LeasesParts) {
    this.#parts = parts;
    this.#feedKey = feedKey(parts.eventsSecret);
  }

  /** Rows that were alive when `judge` last looked. */
  get seen(): number {
    return this.#watched.size;
  }

  /**
   * Commits the lease, and only then reads what the verifier has not applied yet: a revocation that did not see the
   * lease is seen by this reading.
   * @throws LeaseRefused for a malformed request, another caller's verifier, or too many leases
   */
  async renew(request: RenewRequest, caller: LeaseCaller): Promise<RenewResponse> {
    const { store, log, leaseMs, eventsSecret } = this.#parts;
    const { verifierId, name, cursor } = request;
    checkRequest(request);
    const callerLeasesMax = caller.firstParty ? null : CALLER_LEASES_MAX;
    const outcome = await store.takeLease({ verifierId, name, caller: caller.id, cursor, leaseMs, callerLeasesMax });
    if (outcome !== 'taken') this.counters.refused++;
    if (outcome === 'foreign') throw new LeaseRefused(outcome, 'this verifier id belongs to another caller');
    if (outcome === 'too_many') {
      throw new LeaseRefused(
        outcome,
        `a caller holds at most ${CALLER_LEASES_MAX} leases; release one, or let it lapse`,
      );
    }
    const answer = await log.since(cursor);
    this.counters.renewed++;
    return {
      leaseMs,
      cursor: answer.cursor,
      reset: answer.reset,
      invalidations: [...answer.invalidations],
      ackKey: verifierKey(eventsSecret, verifierId),
      feedKey: this.#feedKey,
    };
  }

  /** Takes a lease back from a verifier that has stopped answering from memory. False when there is none of its own. */
  async release(verifierId: string, caller: LeaseCaller): Promise<boolean> {
    if (!ID_PATTERN.test(verifierId)) throw new LeaseRefused('invalid', 'verifierId must be a lower-case UUID');
    const released = await this.#parts.store.releaseLease(verifierId, caller.id);
    if (released) this.counters.released++;
    return released;
  }

  /**
   * Deletes the rows whose renewal this process has watched for longer than any lease of theirs can last. To be called
   * again and again; answers how many rows were deleted.
   */
  async judge(): Promise<number> {
    const { store, log, clock } = this.#parts;
    const { leases } = await log.leases();
    // Noted after the answer: what was seen then was there before.
    const nowMs = clock.monotonicMs();
    const watched = new Map<string, { renewal: string; sinceMs: number }>();
    let deleted = 0;
    for (const { verifierId, renewal, leaseMs } of leases) {
      const before = this.#watched.get(verifierId);
      const watch = before?.renewal === renewal ? before : { renewal, sinceMs: nowMs };
      if (nowMs - watch.sinceMs < lapsedAfterMs(leaseMs)) watched.set(verifierId, watch);
      else if (await store.deleteLease(verifierId, renewal)) deleted++;
    }
    this.#watched = watched;
    this.counters.judgedDead += deleted;
    return deleted;
  }
}

function checkRequest({ verifierId, name, cursor }: RenewRequest): void {
  const wrong = (message: string) => new LeaseRefused('invalid', message);
  if (!ID_PATTERN.test(verifierId)) throw wrong('verifierId must be a lower-case UUID');
  if (name.length > NAME_LENGTH_MAX) throw wrong(`name must have at most ${NAME_LENGTH_MAX} characters`);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  if (/[\u0000-\u001f\u007f]/.test(name)) throw wrong('name must not hold control characters');
  if (cursor === null) return;
  if (!ID_PATTERN.test(cursor.log)) throw wrong('cursor.log must be a lower-case UUID');
  if (!XID_PATTERN.test(cursor.xid) || BigInt(cursor.xid) > XID_MAX) throw wrong('cursor.xid must be a transaction id');
}
