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
/** Ids remembered past the cursor. One forgotten is applied twice, which costs a question and nothing else. */
const IDS_MAX = 10_000;

/** A kind that this verifier does not know, from a newer token-service, is taken for the widest. */
export function kindOf(kind: string): InvalidationKind {
  return (INVALIDATION_KINDS as readonly string[]).includes(kind) ? (kind as InvalidationKind) : 'everything';
}

/** Which invalidations this verifier has applied: for skipping repeats, and for telling poisoned fills. */
export class Applied {
  readonly #kinds: InvalidationKind[] = new Array(WINDOW).fill('everything');
  readonly #subjects: string[] = new Array(WINDOW).fill('');
  readonly #xids = new Map<string, bigint>();
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

  /** Whether applying it again would change nothing. `log` is the log it stands in. */
  includes(log: string, fact: Fact): boolean {
    if (this.#xids.has(fact.id)) return true;
    return this.#cursor?.log === log && BigInt(fact.xid) < this.#cursorXid;
  }

  add(fact: Fact): void {
    this.#note(fact.kind, fact.subject);
    this.#xids.set(fact.id, BigInt(fact.xid));
    if (this.#xids.size > IDS_MAX) this.#xids.delete(this.#xids.keys().next().value!);
  }

  /** Everything of lower transaction ids than the cursor's has been applied. */
  advance(cursor: Cursor): void {
    this.#cursor = { log: cursor.log, xid: cursor.xid };
    this.#cursorXid = BigInt(cursor.xid);
    for (const [id, xid] of this.#xids) if (xid < this.#cursorXid) this.#xids.delete(id);
  }

  /** Memory was emptied: every question in flight is poisoned, and ids of another log mean nothing here. */
  reset(): void {
    this.#note('everything', '');
    this.#xids.clear();
    this.#cursor = null;
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
