import { hash, randomBytes } from 'node:crypto';
import {
  acknowledgementKey,
  type Cursor,
  isId,
  type ReleaseRequest,
  type RenewRequest,
  type RenewResponse,
  usageKey,
} from '@latchkey/contracts';
import type { FeedKeys } from './feed-keys.js';
import type { InvalidationLog } from './log.js';
import {
  type InvalidationStore,
  LEASE_REJECTIONS,
  type LeaseCaller,
  type LeaseRejection,
  lapsedAfterMs,
  type StoreConnection,
  type WaitClock,
} from './types.js';

export type { LeaseCaller } from './types.js';

/** Most leases of one holder other than the first-party services: of all tokens derived from one owner's. */
export const HOLDER_LEASES_MAX = 64;
const NAME_LENGTH_MAX = 100;
const VERSION_LENGTH_MAX = 50;
const CLAIM_PATTERN = /^[A-Za-z0-9_-]{32,64}$/;
/** Empty for verifiers that have no routes. */
const ROUTES_HASH_PATTERN = /^([0-9a-f]{16})?$/;
const XID_PATTERN = /^\d{1,20}$/;
const XID_MAX = 2n ** 64n - 1n;

const REJECTIONS: Record<LeaseRejection, string> = {
  foreign: 'this verifier id belongs to another caller; use an id of your own',
  ended: 'the lease of this claim was ended or released; use a new claim',
  too_many: `too_many: an owner's tokens hold at most ${HOLDER_LEASES_MAX} leases; release one, or let one expire`,
  suspended:
    'suspended: confirmations had to wait for leases of this owner to expire twice, so it gets none for a while; use Verify for each check',
  waiting: 'waiting: several new leases of this caller expired, so a process must run for one lease before it gets one',
};

/** A lease was not granted; implies nothing about any token. */
export class LeaseRefused extends Error {
  override name = 'LeaseRefused';
  constructor(
    readonly reason: 'invalid' | 'protocol' | LeaseRejection,
    message: string,
  ) {
    super(message);
  }
}

export interface LeasesDeps {
  readonly store: InvalidationStore;
  readonly log: InvalidationLog;
  readonly clock: WaitClock;
  readonly leaseMs: number;
  /** Verifiers of an earlier version of the protocol get no lease. Default: 2, the version of 0.1. */
  readonly protocolMin?: number;
  readonly newId: () => string;
  readonly randomBytes?: (length: number) => Uint8Array;
  /** Acknowledgement keys are derived from it. Never leaves this process. */
  readonly eventsSecret: Uint8Array;
  /** Usage keys are derived from it. */
  readonly usageSecret: Uint8Array;
  readonly feedKeys: FeedKeys;
}

/** Grants leases, and reaps dead ones. */
export class Leases {
  readonly #deps: LeasesDeps;
  /** The renewals that this process has observed, and when it first saw each. */
  #watched = new Map<string, { renewal: string; sinceMs: number }>();
  /** The history in which they were seen. */
  #watchedIn = '';
  /** First-party verifiers whose last renewal this history remembers, and those for which that is not so. */
  #witnesses = { history: '', found: 0, lost: 0 };
  readonly counters = { renewed: 0, released: 0, judgedDead: 0 };
  readonly refused: Record<'first_party' | 'token', Record<LeaseRejection, number>> = {
    first_party: noRejections(),
    token: noRejections(),
  };
  /** Live rows at the last run of `judge`, by caller type. */
  seen = { first_party: 0, token: 0 };

  constructor(deps: LeasesDeps) {
    this.#deps = deps;
  }

  /**
   * Commits the lease, and only then reads what the verifier has not applied yet: this read sees every revocation that
   * did not see the lease.
   * @throws LeaseRefused for a malformed request, a verifier that is too old, an ended lease, another caller's lease, or a
   *   caller that gets no lease now
   */
  async renew(request: RenewRequest, caller: LeaseCaller): Promise<RenewResponse> {
    const { store, log, leaseMs, newId, eventsSecret, usageSecret, feedKeys } = this.#deps;
    const random = this.#deps.randomBytes ?? randomBytes;
    const { name, cursor, claim, version, routesHash } = request;
    checkRequest(request);
    const isCurrent = claim !== '';
    if (!isCurrent && (this.#deps.protocolMin ?? 2) > 2)
      throw new LeaseRefused(
        'protocol',
        'verifiers of version 0.1 get no lease here (PROTOCOL_MIN=3): upgrade this one',
      );
    const take = {
      claim: isCurrent ? { hash: hash('sha256', claim, 'buffer') } : { ownId: request.verifierId },
      name,
      version,
      routesHash: (caller.firstParty && routesHash) || null,
      caller,
      cursor,
      leaseMs,
      leasesMax: caller.firstParty ? null : HOLDER_LEASES_MAX,
      fresh: { verifierId: newId(), keySalt: random(32) },
      presented: request.nonce || null,
      nonce: newId(),
    };
    // The lease and the log on one connection: a log read from another server would prove nothing about this lease.
    const { taken, result } = await store.onOneConnection(async (here) => {
      const taken = await here.takeLease(take);
      if (taken.outcome !== 'taken') {
        this.refused[caller.firstParty ? 'first_party' : 'token'][taken.outcome]++;
        throw new LeaseRefused(taken.outcome, REJECTIONS[taken.outcome]);
      }
      // A third party can claim to remember anything; its claim affects its own memory only.
      if (taken.remembered === false && caller.firstParty) await log.forgotten(here);
      const known = taken.remembered ? cursor : null;
      return { taken, result: await log.since(here, known, caller.firstParty, taken.renewal) };
    });
    this.counters.renewed++;
    if (caller.firstParty && take.presented !== null) this.#witness(result.history, taken.remembered);
    const { verifierId, keySalt } = taken;
    const identity = { verifierId, caller: caller.id };
    return {
      leaseMs,
      cursor: result.cursor,
      reset: result.reset,
      invalidations: [...result.invalidations],
      // A verifier of version 0.1 accepts whatever is signed with the feed key that it is given: it gets a random one,
      // receives nothing, and confirms by its cursor or its lease. It signs usage with its first key.
      ackKey: isCurrent
        ? acknowledgementKey(eventsSecret, { ...identity, salt: keySalt })
        : usageKey(usageSecret, identity),
      feedKey: isCurrent ? new Uint8Array(0) : random(32),
      verifierId,
      feedKeys: feedKeys.publicKeys,
      usageKey: usageKey(usageSecret, identity),
      caller: caller.id,
      nonce: taken.nonce,
      history: result.history,
    };
  }

  /** What the renewals of this process show of a history: a backup has forgotten the last ones. */
  witnessesOf(history: string): { readonly found: number; readonly lost: number } {
    return this.#witnesses.history === history ? this.#witnesses : { found: 0, lost: 0 };
  }

  #witness(history: string, remembered: boolean | null): void {
    if (this.#witnesses.history !== history) this.#witnesses = { history, found: 0, lost: 0 };
    if (remembered) this.#witnesses.found++;
    else this.#witnesses.lost++;
  }

  /**
   * Releases the lease of a verifier that has stopped using its memory. False without its claim: confirmations do not wait
   * for a released lease, ids are known to many, and a caller can be many processes. Such a lease expires.
   */
  async release({ verifierId, claim }: ReleaseRequest, callerId: string): Promise<boolean> {
    checkVerifierId(verifierId);
    const released =
      CLAIM_PATTERN.test(claim) &&
      (await this.#deps.store.releaseLease(verifierId, callerId, hash('sha256', claim, 'buffer')));
    if (released) this.counters.released++;
    return released;
  }

  /**
   * Deletes the rows whose renewal this process has observed for longer than their lease can last. To be called
   * periodically.
   * @returns how many rows were deleted
   */
  async reap(): Promise<number> {
    return this.#deps.store.onOneConnection((here) => this.#reap(here));
  }

  async #reap(here: StoreConnection): Promise<number> {
    const { log, clock } = this.#deps;
    const { leases, history } = await log.leases(here);
    if (history !== this.#watchedIn) this.#watched.clear();
    this.#watchedIn = history;
    // Read after the rows: their renewals were committed before this moment.
    const nowMs = clock.monotonicMs();
    const watched = new Map<string, { renewal: string; sinceMs: number }>();
    let deleted = 0;
    for (const { verifierId, renewal, leaseMs } of leases) {
      const before = this.#watched.get(verifierId);
      const watch = before?.renewal === renewal ? before : { renewal, sinceMs: nowMs };
      if (nowMs - watch.sinceMs < lapsedAfterMs(leaseMs)) watched.set(verifierId, watch);
      else if (await here.deleteLease(verifierId, renewal)) deleted++;
    }
    this.#watched = watched;
    this.seen = { first_party: 0, token: 0 };
    for (const { caller, released } of leases) if (!released) this.seen[caller.type]++;
    this.counters.judgedDead += deleted;
    return deleted;
  }
}

const noRejections = () =>
  Object.fromEntries(LEASE_REJECTIONS.map((reason) => [reason, 0])) as Record<LeaseRejection, number>;

function checkRequest({ verifierId, claim, version, routesHash, name, cursor, nonce }: RenewRequest): void {
  const invalid = (message: string) => new LeaseRefused('invalid', message);
  if (claim !== '') {
    if (!CLAIM_PATTERN.test(claim)) throw invalid('claim must be 32 to 64 random characters of A-Z, a-z, 0-9, _ and -');
    if (verifierId !== '') throw invalid('verifierId must be empty when claim is sent: the server assigns the id');
  } else if (!isId(verifierId)) {
    throw invalid('claim is required (verifierId, a lower-case UUID, only from verifiers of version 0.1)');
  }
  if (nonce && !isId(nonce)) throw invalid('nonce must be the one returned by the last renewal, or empty');
  if (!ROUTES_HASH_PATTERN.test(routesHash ?? '')) throw invalid('routesHash must be 16 hexadecimal digits, or empty');
  checkText('name', name, NAME_LENGTH_MAX);
  checkText('version', version, VERSION_LENGTH_MAX);
  checkCursor(cursor);
}

/** @throws LeaseRefused when it is malformed */
export function checkVerifierId(verifierId: string): void {
  if (!isId(verifierId)) throw new LeaseRefused('invalid', 'verifierId must be a lower-case UUID');
}

/** @throws LeaseRefused when it is malformed */
export function checkCursor(cursor: Cursor | null): void {
  const invalid = (message: string) => new LeaseRefused('invalid', message);
  if (cursor === null) return;
  if (!isId(cursor.log)) throw invalid('cursor.log must be a lower-case UUID');
  if (!XID_PATTERN.test(cursor.xid) || BigInt(cursor.xid) > XID_MAX)
    throw invalid('cursor.xid must be a transaction id');
}

function checkText(field: string, text: string, lengthMax: number): void {
  if (text.length > lengthMax) throw new LeaseRefused('invalid', `${field} must have at most ${lengthMax} characters`);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is rejected
  if (/[\u0000-\u001f\u007f]/.test(text) || !text.isWellFormed())
    throw new LeaseRefused('invalid', `${field} must not contain control characters`);
}
