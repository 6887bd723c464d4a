import {
  type Cursor,
  INVALIDATION_KINDS,
  type Invalidation,
  type InvalidationKind,
  type LookupResponse,
} from '@latchkey/contracts';

/** How many of the last invalidations lookups in flight are compared with. An older lookup is poisoned. */
const WINDOW = 1024;
/** Digests remembered. An invalidation forgotten is applied again when repeated, which costs one lookup. */
const DIGESTS_MAX = 10_000;

/** An unknown kind, from a newer token-service, counts as `everything`. */
export function kindOf(kind: string): InvalidationKind {
  return (INVALIDATION_KINDS as readonly string[]).includes(kind) ? (kind as InvalidationKind) : 'everything';
}

/**
 * The invalidations that this verifier has applied: for skipping repeats, and for detecting poisoned fills. A repeat is
 * recognised by its id *and* the digest of its whole content, so that a message with the id of another cannot make this
 * verifier skip the other.
 */
export class Applied {
  readonly #kinds: InvalidationKind[] = new Array(WINDOW).fill('everything');
  readonly #subjects: string[] = new Array(WINDOW).fill('');
  /** The last digests applied, by id. */
  readonly #digests = new Map<string, string>();
  #cursor: Cursor | null = null;
  #cursorXid = 0n;
  #position = 0;

  /** How many were applied so far: read when a lookup is sent, passed to `poisons` with its response. */
  get position(): number {
    return this.#position;
  }

  get cursor(): Cursor | null {
    return this.#cursor;
  }

  /** Whether an invalidation of this id has been applied: with the same content (`same`) or with other (`other`). */
  known(id: string, digest: string): 'no' | 'same' | 'other' {
    const applied = this.#digests.get(id);
    if (applied === undefined) return 'no';
    return applied === digest ? 'same' : 'other';
  }

  /**
   * Whether it lies below the cursor, so that it has been applied. A reason to skip only invalidations of a renewal, in
   * the log that the renewal names: the authority reads both in one statement. It does not hold for messages of the feed.
   */
  isBelowCursor(log: string, xid: string): boolean {
    return this.#cursor?.log === log && BigInt(xid) < this.#cursorXid;
  }

  add({ id, kind, subject }: Invalidation, digest: string): void {
    this.#note(kind, subject);
    this.#digests.delete(id);
    this.#digests.set(id, digest);
    if (this.#digests.size > DIGESTS_MAX) this.#digests.delete(this.#digests.keys().next().value!);
  }

  /** Every invalidation with a transaction id below the cursor's has been applied. */
  advance(cursor: Cursor): void {
    const { log, xid } = cursor;
    this.#cursorXid = BigInt(xid);
    this.#cursor = { log, xid };
  }

  /** After the memory was emptied: poisons every lookup in flight, and forgets the ids, which are of another log. */
  reset(): void {
    this.#note('everything', '');
    this.#digests.clear();
    this.#cursor = null;
  }

  /** Poisons every lookup in flight. */
  poisonAll(): void {
    this.#note('everything', '');
  }

  /** Whether a response can predate an invalidation applied since its lookup was sent at `position`. */
  poisons(position: number, response: LookupResponse): boolean {
    if (this.#position - position > WINDOW) return true;
    for (let at = position; at < this.#position; at++) {
      if (touches(this.#kinds[at % WINDOW]!, this.#subjects[at % WINDOW]!, response)) return true;
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
