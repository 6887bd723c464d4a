import {
  INVALIDATION_EVENT_LENGTH_MAX,
  type InvalidationEvent,
  parseInvalidationEvent,
  signAcknowledgement,
  verifyInvalidationEvent,
} from '@latchkey/contracts';
import type { Applied, Fact } from './applied.js';
import { Budget } from './budget.js';
import type { Counters, FeedDrop } from './counters.js';
import type { Lease } from './lease.js';
import type { VerifierLimits } from './limits.js';
import type { Clock, Feed } from './types.js';

/** Messages kept until the first renewal brings the keys. */
const EARLY_MAX = 256;
/** Messages of an unknown log kept until a renewal says which log is current. */
const WAITING_MAX = 256;
/** Logs known to be none: their messages are dropped without another renewal. */
const OTHER_LOGS_MAX = 16;

export interface FeedReaderDeps {
  readonly clock: Clock;
  readonly feed: Pick<Feed, 'acknowledge'>;
  readonly lease: Pick<Lease, 'held' | 'identity' | 'sent' | 'urge' | 'renewPast'>;
  readonly applied: Applied;
  readonly limits: VerifierLimits;
  readonly counters: Counters;
  /** Overtakes what the invalidation names, and cuts its streams. */
  readonly apply: (fact: Fact, digest: string) => void;
  /** Overtakes what the invalidation names, and checks its streams again; cuts those not checked since a reset. */
  readonly applyOld: (fact: Fact, digest: string) => void;
  /** Empties the memory and poisons every fill in flight. */
  readonly reset: () => void;
}

/** An authentic message whose log is not known yet. */
interface Waiting {
  readonly event: InvalidationEvent;
  readonly digests: readonly string[];
  /** Renewals sent before it came: only a later one tells whether its log is current. */
  readonly sent: number;
}

/**
 * Reads the feed. A message is believed by its signature alone, applied, and then acknowledged by the digests of what
 * it says. Whoever repeats, alters or makes up messages costs a bounded amount of work and nothing else.
 */
export class FeedReader {
  readonly #deps: FeedReaderDeps;
  readonly #budget: Budget;
  readonly #otherLogs = new Set<string>();
  #early: string[] = [];
  #waiting: Waiting[] = [];

  constructor(deps: FeedReaderDeps) {
    this.#deps = deps;
    this.#budget = new Budget(deps.clock, deps.limits.signaturesPerSecondMax);
  }

  /** @param renew whether the acknowledgement may not arrive, so that a cursor past the message is to be sent as well */
  read(text: string, renew = false): void {
    this.#count(this.#take(text, renew));
  }

  #take(text: string, renew: boolean): FeedDrop | undefined {
    const { identity } = this.#deps.lease;
    if (text.length > INVALIDATION_EVENT_LENGTH_MAX) return 'too_long';
    if (!identity) {
      if (this.#early.length >= EARLY_MAX) return 'too_early';
      this.#early.push(text);
      return undefined;
    }
    if (!this.#budget.take()) {
      // A genuine one may be among them: renewals bring it, and cursors confirm it.
      this.#deps.lease.urge();
      return 'over_budget';
    }
    const event = parseInvalidationEvent(text);
    if (!event) return 'malformed';
    const key = identity.feed.get(event.key);
    if (!key) return 'unknown_key';
    const digests = verifyInvalidationEvent(key, event);
    if (!digests) return 'not_authentic';
    const drop = this.#hear(event, digests);
    if (renew && !drop) for (const { xid } of event.invalidations) this.#deps.lease.renewPast(event.log, xid);
    return drop;
  }

  /** What a renewal names is the current log; all else that came before it was sent is of another. */
  onRenewed(sent: number): void {
    const { applied } = this.#deps;
    const early = this.#early;
    this.#early = [];
    for (const text of early) this.read(text);
    const waiting = this.#waiting;
    this.#waiting = [];
    this.#otherLogs.delete(applied.cursor!.log);
    for (const one of waiting) {
      if (one.event.log === applied.cursor?.log) this.#count(this.#hear(one.event, one.digests));
      else if (one.sent >= sent) this.#count(this.#wait(one));
      else {
        this.#otherLogs.add(one.event.log);
        if (this.#otherLogs.size > OTHER_LOGS_MAX) this.#otherLogs.delete(this.#otherLogs.values().next().value!);
        this.#count('other_log');
      }
    }
  }

  #hear(event: InvalidationEvent, digests: readonly string[]): FeedDrop | undefined {
    const { lease, applied, counters, apply, applyOld, reset } = this.#deps;
    if (event.log !== applied.cursor?.log) {
      return this.#otherLogs.has(event.log) ? 'other_log' : this.#wait({ event, digests, sent: lease.sent });
    }
    const known = event.invalidations.map(({ id }, i) => applied.known(id, digests[i]!));
    if (known.includes('other')) {
      // One of the two was not the token-service's. The authority says which; until then nothing is remembered.
      reset();
      lease.urge();
      return 'conflict';
    }
    event.invalidations.forEach((invalidation, i) => {
      if (known[i] === 'same') counters.invalidationsRepeated++;
      // Most likely one of long ago that somebody repeats: what is allowed again by now keeps its streams. Without a lease
      // nothing vouches for the cursor: transaction ids come again when a backup is put back.
      else if (lease.held() && applied.isBelowCursor(event.log, invalidation.xid)) applyOld(invalidation, digests[i]!);
      else apply(invalidation, digests[i]!);
    });
    this.#acknowledge(digests);
    return undefined;
  }

  #wait(waiting: Waiting): FeedDrop | undefined {
    if (this.#waiting.length >= WAITING_MAX) return 'other_log';
    this.#waiting.push(waiting);
    this.#deps.lease.urge();
    return undefined;
  }

  /** Only ever after the invalidations have been applied and their streams have been cut. */
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
