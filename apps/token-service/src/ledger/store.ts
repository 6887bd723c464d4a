import type { LedgerEntry, LedgerSource } from './entry.js';
import type { Place } from './format.js';

/** Where the database stands. */
export interface FollowRow {
  history: string;
  is_current: boolean;
  /** The history in which tokens are answered without reservation. */
  settled_history: string | null;
  /** Tokens from before are not accepted in this history until an administrator has decided. */
  is_held: boolean;
  /** A restore was recorded in this history. */
  is_restored: boolean;
  /** When an administrator decided about it. */
  decided_at: Date | null;
  /** Tokens from before a time are held, since this history or an earlier one. */
  is_unsettled: boolean;
  /** Server, timeline and database of this history, and of the settled one. */
  incarnation: string;
  settled_incarnation: string | null;
  at: Date;
  xmin: string;
  /** Other ledgers that are alive. */
  peers: string[];
  events: (Omit<LedgerSource, 'at'> & { at: number; xid: string })[] | null;
}

/** How far the database has seen a stream. */
export interface StreamRow {
  stream: string;
  ledger: string;
  sequence: string;
  mac: string;
  history: string;
  cursor_xid: string | null;
  seen_at: Date;
  /** When it was last seen in a settled history; null: never. */
  settled_seen_at: Date | null;
  compared_history: string | null;
  /** It was written in a settled history: this database knows the stream. */
  is_settled: boolean;
  /** It was written last while tokens were held: that shows nothing of what this database has. */
  is_held: boolean;
}

/** A ledger that is uncertain, or not whole, about which it was decided. */
export interface IgnoredLedger {
  /** Its id; of one that cannot be read, the name of its folder. */
  readonly name: string;
  /** When it was last alive then, in milliseconds since 1970; later, it is looked at again. */
  readonly until: number;
}

export interface StreamMark extends Place {
  readonly stream: string;
  readonly ledger: string;
  /** The history in which the cursor holds. */
  readonly history: string;
  readonly cursor: string;
  /** Null: it is not whole. */
  readonly comparedHistory: string | null;
}

/** What the follower keeps in the database and reads there. Each method rejects when PostgreSQL is unavailable. */
export interface LedgerStore {
  /**
   * Names the server and the database, so that a copy of the database does not write to the same folder; the identity, which
   * a copy keeps; and the database's time.
   */
  place(): Promise<{ name: string; database: string; at: Date }>;
  /** Where the database stands, and the first `limit` events from a cursor on. */
  follow(given: { cursor: string; from: Date; limit: number; ledger: string | null }): Promise<FollowRow>;
  /** How far the database has seen each stream. */
  streams(): Promise<StreamRow[]>;
  /** Ids of those that this history lacks and that no restore has dealt with. */
  lacking(entries: readonly LedgerEntry[]): Promise<Set<string>>;
  /** Only in the mark's history. */
  moveMark(mark: StreamMark): Promise<void>;
  endStream(stream: string): Promise<void>;
  /** These ledgers have been compared with a history. Only in that history. */
  compared(ledgers: readonly string[], history: string): Promise<void>;
  ignored(): Promise<IgnoredLedger[]>;
  ignore(ledgers: readonly IgnoredLedger[]): Promise<void>;
  /** Removes marks of streams that no ledger keeps any more. */
  prune(days: number): Promise<void>;
  /**
   * Forgets the ledgers of a settled history, once none of them is kept any more.
   * @returns whether none is known
   */
  forget(): Promise<boolean>;
}
