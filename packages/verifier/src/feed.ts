import {
  INVALIDATION_EVENT_LENGTH_MAX,
  type Invalidation,
  type InvalidationEvent,
  parseInvalidationEvent,
  signAcknowledgement,
  verifyInvalidationEvent,
} from '@latchkey/contracts';
import type { Applied } from './applied.js';
import { Budget } from './budget.js';
import type { Counters, FeedDrop } from './counters.js';
import type { Lease } from './lease.js';
import type { VerifierLimits } from './limits.js';
import type { Clock, Feed } from './types.js';

/** Messages kept until the first renewal brings the keys. */
const EARLY_MAX = 256;
/** Messages of an unknown log kept until a renewal names the current log. */
const DEFERRED_MAX = 256;
/** Logs known not to be current: their messages are dropped without another renewal. */
const OTHER_LOGS_MAX = 16;

export interface FeedReaderDeps {
  readonly clock: Clock;
  readonly feed: Pick<Feed, 'acknowledge'>;
  readonly lease: Pick<Lease, 'held' | 'identity' | 'sent' | 'requestRenewal' | 'renewPast'>;
  readonly applied: Applied;
  readonly limits: VerifierLimits;
  readonly counters: Counters;
  /** Drops what the invalidation names from memory, and cuts its streams. */
  readonly apply: (invalidation: Invalidation, digest: string) => void;
  /** Drops what the invalidation names, and checks its streams again; cuts those not checked since a reset. */
  readonly applyOld: (invalidation: Invalidation, digest: string) => void;
  /** Empties the memory and poisons every fill in flight. */
  readonly reset: () => void;
}

/** An authentic message whose log is not known yet. */
interface Deferred {
  readonly event: InvalidationEvent;
  readonly digests: readonly string[];
  /** Renewals sent before it arrived: only a later one shows whether its log is current. */
  readonly sent: number;
}

/**
 * Reads the feed. A message with a valid signature is applied, and then acknowledged by the digests of its invalidations.
 * Repeated, altered or forged messages cost a bounded amount of work and have no other effect.
 */
export class FeedReader {
  readonly #deps: FeedReaderDeps;
  readonly #budget: Budget;
  readonly #otherLogs = new Set<string>();
  #early: string[] = [];
  #deferred: Deferred[] = [];

  constructor(deps: FeedReaderDeps) {
    this.#deps = deps;
    this.#budget = new Budget(deps.clock, deps.limits.signaturesPerSecondMax);
  }

  /** @param renew the acknowledgement might not arrive: a cursor past the message is sent as well */
  read(text: string, renew = false): void {
    this.#count(this.#receive(text, renew));
  }

  #receive(text: string, renew: boolean): FeedDrop | undefined {
    const { identity } = this.#deps.lease;
    if (text.length > INVALIDATION_EVENT_LENGTH_MAX) return 'too_long';
    if (!identity) {
      if (this.#early.length >= EARLY_MAX) return 'too_early';
      this.#early.push(text);
      return undefined;
    }
    if (!this.#budget.take()) {
      // It can be genuine: then renewals bring its invalidations, and cursors confirm them.
      this.#deps.lease.requestRenewal();
      return 'over_budget';
    }
    const event = parseInvalidationEvent(text);
    if (!event) return 'malformed';
    const key = identity.feed.get(event.key);
    if (!key) return 'unknown_key';
    const digests = verifyInvalidationEvent(key, event);
    if (!digests) return 'not_authentic';
    const drop = this.#process(event, digests);
    if (renew && !drop) for (const { xid } of event.invalidations) this.#deps.lease.renewPast(event.log, xid);
    return drop;
  }

  /** The log that a renewal names is current; messages of others that arrived before it was sent are dropped. */
  onRenewed(sent: number): void {
    const { applied } = this.#deps;
    const early = this.#early;
    this.#early = [];
    for (const text of early) this.read(text);
    const deferred = this.#deferred;
    this.#deferred = [];
    this.#otherLogs.delete(applied.cursor!.log);
    for (const one of deferred) {
      if (one.event.log === applied.cursor?.log) this.#count(this.#process(one.event, one.digests));
      else if (one.sent >= sent) this.#count(this.#defer(one));
      else {
        this.#otherLogs.add(one.event.log);
        if (this.#otherLogs.size > OTHER_LOGS_MAX) this.#otherLogs.delete(this.#otherLogs.values().next().value!);
        this.#count('other_log');
      }
    }
  }

  #process(event: InvalidationEvent, digests: readonly string[]): FeedDrop | undefined {
    const { lease, applied, counters, apply, applyOld, reset } = this.#deps;
    if (event.log !== applied.cursor?.log) {
      return this.#otherLogs.has(event.log) ? 'other_log' : this.#defer({ event, digests, sent: lease.sent });
    }
    const known = event.invalidations.map(({ id }, i) => applied.known(id, digests[i]!));
    if (known.includes('other')) {
      // One of the two is not from the token-service. The next renewal shows which; until then the memory stays empty.
      reset();
      lease.requestRenewal();
      return 'conflict';
    }
    event.invalidations.forEach((invalidation, i) => {
      if (known[i] === 'same') counters.invalidationsRepeated++;
      // Most likely an old message repeated: streams of tokens that are allowed again by now stay open. Without a lease the
      // cursor proves nothing: transaction ids repeat when a backup is restored.
      else if (lease.held() && applied.isBelowCursor(event.log, invalidation.xid)) applyOld(invalidation, digests[i]!);
      else apply(invalidation, digests[i]!);
    });
    this.#acknowledge(digests);
    return undefined;
  }

  #defer(message: Deferred): FeedDrop | undefined {
    if (this.#deferred.length >= DEFERRED_MAX) return 'other_log';
    this.#deferred.push(message);
    this.#deps.lease.requestRenewal();
    return undefined;
  }

  /** Only after the invalidations have been applied and their streams have been cut. */
  #acknowledge(digests: readonly string[]): void {
    const { feed, lease, counters } = this.#deps;
    const { verifierId, acknowledgements } = lease.identity!;
    feed.acknowledge(JSON.stringify(signAcknowledgement(acknowledgements, verifierId, digests))).then(
      () => counters.acknowledgements++,
      () => counters.acknowledgementsFailed++,
    );
  }

  #count(drop: FeedDrop | undefined): void {
    if (drop) this.#deps.counters.messagesDropped[drop]++;
  }
}
