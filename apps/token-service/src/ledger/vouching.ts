import type { Restore } from '@latchkey/contracts';
import type { LedgerFaultCode } from './format.js';
import type { StreamRow } from './store.js';
import type { LedgerComparison } from './thread.js';

/** Why it is not certain that nothing is missing. */
export type DoubtReason = NonNullable<Restore['reason']>;

const OF_FAULT: Record<LedgerFaultCode, DoubtReason> = {
  unreadable: 'ledger_unreadable',
  foreign: 'ledger_unreadable',
  changed: 'ledger_cut',
  cut: 'ledger_cut',
  stream_missing: 'ledger_cut',
  segment_missing: 'ledger_cut',
  state_missing: 'ledger_cut',
  mark: 'ledger_cut',
  uncertain: 'ledger_uncertain',
};

/** Whether nothing is wrong with a ledger, and nothing can have been written to it after it was copied. */
export const isSound = ({ faults, isOriginal, isComplete }: LedgerComparison): boolean =>
  faults.length === 0 && (isOriginal || isComplete);

/** Between the marks of two ledgers that are in use together, at most. */
const TOGETHER_MS = 60_000;

/** Where this process stands. */
export interface Here {
  readonly history: string;
  /** It has followed the last settled history without interruption, to its end. */
  readonly isContinuous: boolean;
  /** It may have missed something then. */
  readonly hasGap: boolean;
  /** Other ledgers are still being waited for. */
  readonly isPatient: boolean;
}

/** Why no ledger shows that nothing is missing from a history; null: one does, and none is of a later time and incomplete. */
export function doubtOf(
  ledgers: readonly LedgerComparison[],
  rows: readonly StreamRow[],
  here: Here,
): DoubtReason | null {
  const known = ledgers.filter(({ isKnown }) => isKnown);
  const reachesTo =
    known
      .flatMap((ledger) => ledger.reachesTo ?? [])
      .sort()
      .at(-1) ?? '';
  for (const ledger of ledgers) {
    if (ledger.isUncertain) {
      // What has been done here without interruption is known here, whatever a copy of this database has done elsewhere.
      if (here.isContinuous && !here.hasGap) continue;
      return 'ledger_uncertain';
    }
    const isRemembered = ledger.isKnown && (!ledger.isOwn || rows.some((row) => row.ledger === ledger.ledger));
    if (isRemembered || (ledger.reachesTo ?? reachesTo) < reachesTo) continue;
    if (ledger.faults[0]) return OF_FAULT[ledger.faults[0].code];
    if (!(ledger.isOriginal || ledger.isComplete)) return 'ledger_copied';
  }
  if (here.hasGap) return 'ledger_incomplete';
  const compared = new Set(ledgers.filter(isSound).map(({ ledger }) => ledger));
  for (const row of rows) if (row.compared_history === here.history) compared.add(row.ledger);
  const doubts = known.map((ledger) => doubtOfOne(ledger, ledgers, rows, here, compared));
  if (doubts.includes(null)) return null;
  const worst = doubts.find((doubt) => doubt !== 'ledger_missing');
  if (worst) return worst;
  return rows.some((row) => row.is_settled) ? 'ledger_missing' : 'no_ledger';
}

/**
 * Why a ledger does not show that nothing is missing from a history; null: it does. It does when it is whole, is the original
 * and not a copy of it, is known to this history from a settled one, was in use when the backup was made, and was the last to be alive: what other ledgers of that
 * time contain has been compared with this history too.
 *
 * @param ledgers all that there are
 * @param rows what the database knows of all ledgers
 * @param compared ledgers that have been compared with this history
 */
function doubtOfOne(
  ledger: LedgerComparison,
  ledgers: readonly LedgerComparison[],
  rows: readonly StreamRow[],
  here: Here,
  compared: ReadonlySet<string>,
): DoubtReason | null {
  const [fault] = ledger.faults;
  if (fault) return OF_FAULT[fault.code];
  if (!rows.some((row) => row.is_settled && row.ledger === ledger.ledger))
    return ledger.reachesTo === null ? 'ledger_missing' : 'ledger_incomplete';
  if (!(ledger.isOriginal || ledger.isComplete)) return 'ledger_copied';
  const isLater = (at: string) => ledger.reachesTo === null || at > ledger.reachesTo;
  const later = rows.filter((row) => row.ledger !== ledger.ledger && isLater(row.seen_at.toISOString()));
  // This one can have gone on where the backup was not made: those in use when it was made contain what came after it.
  const settled = rows.filter((row) => row.is_settled);
  const seenMs = (some: readonly StreamRow[]) => Math.max(...some.map((row) => row.settled_seen_at?.getTime() ?? 0));
  const sinceMs = seenMs(settled) - TOGETHER_MS;
  const wasLeft = seenMs(settled.filter((row) => row.ledger === ledger.ledger)) < sinceMs;
  const inUse = wasLeft ? settled.filter((row) => seenMs([row]) >= sinceMs) : [];
  if (!inUse.every((row) => compared.has(row.ledger))) return 'ledger_incomplete';
  if (ledger.isOwn && here.isContinuous && !here.isPatient) return null;
  // Those of the last ledgers too: this one can be of a server that was left long ago.
  const last = ledgers.filter((one) => {
    if (one.reachesTo !== null) return isLater(one.reachesTo);
    const isEarlier = one.isStated && !isLater(new Date(one.aliveTo).toISOString());
    return one !== ledger && one.faults.length > 0 && !isEarlier;
  });
  const peers = [...last.flatMap((one) => [one.ledger, ...one.peers]), ...ledger.peers];
  return [...later.map((row) => row.ledger), ...peers].every((id) => compared.has(id)) ? null : 'ledger_incomplete';
}
