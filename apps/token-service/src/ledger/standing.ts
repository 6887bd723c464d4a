import type { FollowRow } from './store.js';

/** Where the database stands, as last read. */
export interface Standing {
  readonly history: string;
  readonly isCurrent: boolean;
  readonly settledHistory: string | null;
  /** Whether it is known already that an administrator must decide. */
  readonly isHeld: boolean;
  /** Nobody has decided about tokens from before a restore, of this history or an earlier one. */
  readonly isUndecided: boolean;
  /** Changes were found that this history lacked. */
  readonly isRestored: boolean;
  /** The same database on a later timeline than the settled history: a standby was promoted, or it was recovered to a time. */
  readonly isPromoted: boolean;
}

export const standingOf = (row: FollowRow): Standing => ({
  history: row.history,
  isCurrent: row.is_current,
  settledHistory: row.settled_history,
  isHeld: row.is_held,
  isUndecided: row.is_undecided,
  isRestored: row.is_restored,
  isPromoted: isLaterTimeline(row.incarnation, row.settled_incarnation),
});

/** Incarnations: system identifier, timeline, database, file. */
function isLaterTimeline(now: string, then: string | null): boolean {
  const [nowParts, thenParts] = [now, then ?? ''].map((text) => text.split('/')) as [string[], string[]];
  const isSame = (at: number) => nowParts[at] === thenParts[at];
  return isSame(0) && isSame(2) && isSame(3) && nowParts[1]! > thenParts[1]!;
}
