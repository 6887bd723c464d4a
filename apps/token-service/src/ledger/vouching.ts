import { madeAtMs } from '@latchkey/runtime';
import type { LedgerFaultCode } from './format.js';
import type { StreamRow } from './ledger.queries.js';
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
};

export interface OwnStream {
  readonly stream: string;
  readonly isContinuous: boolean;
  readonly hasGap: boolean;
  readonly isPatient: boolean;
}

/**
 * Why a ledger does not show that nothing is missing from a history; null: it does. It does when it is whole, is the original
 * and not a copy of it, reaches back to what this history last knew of it, and was the last to be alive: what other ledgers
 * of that time contain has been compared with this history too.
 *
 * @param rows what the database knows of all ledgers
 * @param now the history, since when it is doubted (what was written later says nothing about it), this process's stream,
 *   whether this process has followed without interruption since a settled history, whether it may have missed something
 *   then, and whether other ledgers are still being waited for
 */
export function doubtOf(
  ledger: LedgerComparison,
  rows: readonly StreamRow[],
  now: { history: string; doubtedAt: Date | null; own: OwnStream },
): DoubtReason | null {
  const { history, doubtedAt, own } = now;
  const [fault] = ledger.faults;
  if (fault) return OF_FAULT[fault.code];
  const isContinuous = own.isContinuous && ledger.isOwn;
  if (ledger.isOwn && own.hasGap) return 'ledger_incomplete';
  const earlier = rows.filter(({ stream }) => {
    if (stream === own.stream) return isContinuous;
    return doubtedAt === null || madeAtMs(stream) < doubtedAt.getTime();
  });
  if (!earlier.some((row) => row.ledger === ledger.ledger))
    return ledger.reachesTo === null ? 'ledger_missing' : 'ledger_incomplete';
  if (ledger.isComplete) return null;
  // A process that was there when the doubt arose, and could have shown that nothing is missing, has not.
  if (ledger.isDoubted && !isContinuous) return 'ledger_incomplete';
  if (!ledger.isOriginal) return 'ledger_copied';
  if (isContinuous && !own.isPatient) return null;
  const others = earlier.filter((row) => row.ledger !== ledger.ledger);
  const isCompared = (id: string) => rows.some((row) => row.ledger === id && row.compared_history === history);
  const isLater = (row: StreamRow) => ledger.reachesTo === null || row.seen_at.toISOString() > ledger.reachesTo;
  const later = isContinuous ? [] : others.filter(isLater);
  const unknown = [...later.map((row) => row.ledger), ...ledger.peers].filter((id) => !isCompared(id));
  return unknown.length > 0 ? 'ledger_incomplete' : null;
}
