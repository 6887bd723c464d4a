import type { LedgerFaultCode } from './format.js';
import type { StreamRow } from './store.js';
import type { LedgerComparison } from './thread.js';

/** Why it is not certain that nothing is missing. */
export const DOUBT_REASONS = [
  'no_ledger',
  'ledger_missing',
  'ledger_copied',
  'ledger_cut',
  'ledger_unreadable',
  'ledger_incomplete',
] as const;
export type DoubtReason = (typeof DOUBT_REASONS)[number];

const OF_FAULT: Record<LedgerFaultCode, DoubtReason> = {
  unreadable: 'ledger_unreadable',
  foreign: 'ledger_unreadable',
  changed: 'ledger_cut',
  cut: 'ledger_cut',
  stream_missing: 'ledger_cut',
  segment_missing: 'ledger_cut',
  state_missing: 'ledger_cut',
  mark: 'ledger_cut',
  uncertain: 'ledger_incomplete',
};

/** Where this process stands. */
export interface Here {
  readonly history: string;
  /** It has followed the last settled history without interruption, to its end. */
  readonly isContinuous: boolean;
  /** The folder of the ledger that may lack something of then; undefined: none does. */
  readonly gapIn?: string | undefined;
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
    if (ledger.isKnown) continue;
    // Of one that was used at the same time, nobody knows what this database lacks, however long it was used here since.
    if (!ledger.isUncertain && (ledger.reachesTo ?? reachesTo) < reachesTo) continue;
    // What has been done here without interruption is known here, whatever a copy of this database has done elsewhere.
    if (ledger.isUncertain && here.isContinuous && here.gapIn === undefined) continue;
    if (ledger.faults[0]) return OF_FAULT[ledger.faults[0].code];
    if (!ledger.isOriginal) return 'ledger_copied';
  }
  const whole = ledgers.filter(({ faults, isOriginal }) => faults.length === 0 && isOriginal);
  const compared = new Set(whole.map(({ ledger }) => ledger));
  for (const row of rows) if (row.compared_history === here.history) compared.add(row.ledger);
  const doubts = known.map((ledger) => doubtOfOne(ledger, rows, here, compared));
  if (doubts.includes(null)) return null;
  const worst = doubts.find((doubt) => doubt !== 'ledger_missing');
  if (worst) return worst;
  return rows.some((row) => row.is_settled) ? 'ledger_missing' : 'no_ledger';
}

/**
 * Why a ledger does not show that nothing is missing from a history; null: it does. It does when it is whole, is the original
 * and not a copy of it, is known to this history from a settled one, and was the last to be alive: what other ledgers of that
 * time contain has been compared with this history too.
 *
 * @param rows what the database knows of all ledgers
 * @param compared ledgers that have been compared with this history
 */
function doubtOfOne(
  ledger: LedgerComparison,
  rows: readonly StreamRow[],
  here: Here,
  compared: ReadonlySet<string>,
): DoubtReason | null {
  const [fault] = ledger.faults;
  if (fault) return OF_FAULT[fault.code];
  if (here.gapIn !== undefined && (ledger.isOwn || ledger.folder === here.gapIn)) return 'ledger_incomplete';
  if (!rows.some((row) => row.is_settled && row.ledger === ledger.ledger))
    return ledger.reachesTo === null ? 'ledger_missing' : 'ledger_incomplete';
  if (ledger.isComplete) return null;
  if (!ledger.isOriginal) return 'ledger_copied';
  if (ledger.isOwn && here.isContinuous && !here.isPatient) return null;
  const isLater = (row: StreamRow) => ledger.reachesTo === null || row.seen_at.toISOString() > ledger.reachesTo;
  const later = rows.filter((row) => row.ledger !== ledger.ledger && isLater(row));
  const others = [...later.map((row) => row.ledger), ...ledger.peers];
  return others.every((id) => compared.has(id)) ? null : 'ledger_incomplete';
}
