import { type Cursor, INVALIDATION_KINDS, type InvalidationKind, type LookupResponse } from '@latchkey/contracts';

/** What an invalidation says, whichever way it came. */
export interface Fact {
  readonly id: string;
  readonly kind: InvalidationKind;
  readonly subject: string;
  readonly cut: boolean;
  readonly xid: string;
}

/** The invalidations last applied that are kept for judging questions in flight. A question older than that is poisoned. */
const WINDOW = 1024;
/** Digests remembered. One forgotten is applied twice when it is repeated, which costs a question and nothing else. */
const DIGESTS_MAX = 10_000;

/** A kind that this verifier does not know, from a newer token-service, is taken for the widest. */
export function kindOf(kind: string): InvalidationKind {
  return (INVALIDATION_KINDS as readonly string[]).includes(kind) ? (kind as InvalidationKind) : 'everything';
}

/**
 * Which invalidations this verifier has applied: for skipping repeats, and for telling poisoned fills. A repeat is known
 * by its id *and* by the digest of all that it says: whoever could make a message with the id of another must not make
 * this verifier skip the other.
 */
export class Applied {
  readonly #kinds: InvalidationKind[] = new Array(WINDOW).fill('everything');
  readonly #subjects: string[] = new Array(WINDOW).fill('');
  /** Digests by id, those applied last. */
  readonly #digests = new Map<string, string>();
  #cursor: Cursor | null = null;
  #cursorXid = 0n;
  #position = 0;

  /** How many were applied so far: noted when a question is sent, handed to `poisons` with its answer. */
  get position(): number {
    return this.#position;
  }

  get cursor(): Cursor | null {
    return this.#cursor;
  }

  /** Whether one of this id has been applied: with this very content (`same`), or with other (`other`). */
  known(id: string, digest: string): 'no' | 'same' | 'other' {
    const applied = this.#digests.get(id);
    if (applied === undefined) return 'no';
    return applied === digest ? 'same' : 'other';
  }

  /**
   * Whether the cursor says that it has been applied. A reason to skip only what a renewal carries, in the log that it
   * names: the authority has read both in one statement. A message of the feed proves nothing of the kind.
   */
  isBelowCursor(log: string, xid: string): boolean {
    return this.#cursor?.log === log && BigInt(xid) < this.#cursorXid;
  }

  add(fact: Fact, digest: string): void {
    this.#note(fact.kind, fact.subject);
    this.#digests.delete(fact.id);
    this.#digests.set(fact.id, digest);
    if (this.#digests.size > DIGESTS_MAX) this.#digests.delete(this.#digests.keys().next().value!);
  }

  /** Everything of lower transaction ids than the cursor's has been applied. */
  advance(cursor: Cursor): void {
    const { log, xid } = cursor;
    this.#cursorXid = BigInt(xid);
    this.#cursor = { log, xid };
  }

  /** Memory was emptied: every question in flight is poisoned, and ids of another log mean nothing here. */
  reset(): void {
    this.#note('everything', '');
    this.#digests.clear();
    this.#cursor = null;
  }

  /** Every question in flight is poisoned. */
  doubt(): void {
    this.#note('everything', '');
  }

  /** Whether an answer may predate an invalidation applied since its question was sent at `position`. */
  poisons(position: number, answer: LookupResponse): boolean {
    if (this.#position - position > WINDOW) return true;
    for (let at = position; at < this.#position; at++) {
      if (touches(this.#kinds[at % WINDOW]!, this.#subjects[at % WINDOW]!, answer)) return true;
    }
    return false;
  }

  #note(kind: InvalidationKind, subject: string): void {
    this.#kinds[this.#position % WINDOW] = kind;
    this.#subjects[this.#position % WINDOW] = subject;
    this.#position++;
  }
}

function touches(kind: InvalidationKind, subject: string, { known, token }: LookupResponse): boolean {
  if (kind === 'everything') return true;
  if (!known || !token) return kind === 'misses';
  switch (kind) {
    case 'token':
      return token.id === subject || token.ancestors.includes(subject);
    case 'owner':
      return token.ownerId === subject;
    case 'project':
      return (
        token.project === subject ||
        token.ownerId === subject ||
        token.grants.some((grant) => grant.project === subject)
      );
    case 'misses':
      return false;
  }
}
