import type { Clock } from '@latchkey/runtime';
import type { LedgerEntry } from './entry.js';
import type { OwnLedger } from './own-ledger.js';
import type { Standing } from './standing.js';
import type { IgnoredLedger, LedgerStore, StreamRow } from './store.js';
import type { LedgerComparison } from './thread.js';
import { type DoubtReason, doubtOf, type Here, isSound } from './vouching.js';

const DAY_MS = 24 * 3_600_000;
const COMPARED_AT_ONCE = 5_000;
/** Between the time of an event and that at which its ledger is known to have been seen, at most. */
const LATE_MS = DAY_MS;

/** What the ledgers say of the history that the database is in. */
export interface LedgerFindings {
  readonly history: string;
  /** Changes that this history lacks. */
  readonly missing: readonly LedgerEntry[];
  /** Why no ledger shows that nothing else is missing; null: one does. */
  readonly doubt: DoubtReason | null;
  /** For people: what is wrong, and where. */
  readonly problems: readonly string[];
  /** Until when the best of them reaches. */
  readonly reachesTo: string | null;
  /** Ledgers that nobody can tell to be of this database. */
  readonly uncertain: readonly IgnoredLedger[];
  /** The own ledger, all of whose entries have been compared; null: it could not be read, or is not whole. */
  readonly read: string | null;
  /** The own ledger, if it is not whole: another one takes its place once that is decided. */
  readonly damaged: string | null;
  /** Others that are not whole: once that is decided, they are not looked at any more. */
  readonly ended: readonly IgnoredLedger[];
  /** The others that are whole. */
  readonly whole: readonly string[];
  /**
   * A ledger could not be written when an earlier history ended, so that it does not show what was lost then; its id, null where
   * none had been open or several could not. Null: all could.
   */
  readonly gap: { readonly ledger: string | null } | null;
}

export interface ComparisonDeps {
  readonly store: LedgerStore;
  /** LEDGER_RETENTION_DAYS and AUDIT_RETENTION_MONTHS (0: for ever). */
  readonly retention: { readonly ledgerDays: number; readonly auditMonths: number };
  readonly clock: Pick<Clock, 'wallMs'>;
}

/** What this process has done until now. */
export interface Followed extends Pick<Here, 'isPatient'>, Pick<LedgerFindings, 'gap'> {
  /** The ledger into which it has followed the last settled history to its end. */
  readonly followedInto: string | undefined;
}

/** What is known of a history where no ledger was read. */
export const nothingRead = (history: string, doubt: DoubtReason): LedgerFindings => ({
  ...{ history, doubt, missing: [], problems: [], reachesTo: null },
  ...{ uncertain: [], read: null, damaged: null, ended: [], whole: [], gap: null },
});

/**
 * Compares a history of the database with all ledgers that there are.
 * @param rows what the database knows of them
 * @throws when PostgreSQL is unavailable
 */
export async function compareLedgers(
  deps: ComparisonDeps,
  own: OwnLedger,
  rows: readonly StreamRow[],
  standing: Pick<Standing, 'history' | 'settledHistory'>,
  { followedInto, gap, isPatient }: Followed,
): Promise<LedgerFindings> {
  const { history, settledHistory } = standing;
  const marks = rows.map(({ stream, ledger, sequence, mac, seen_at: seenAt }) => {
    return { stream, ledger, sequence: Number(sequence), mac, seenAt: seenAt.toISOString() };
  });
  const retainedSince = deps.clock.wallMs() - deps.retention.ledgerDays * DAY_MS;
  const ignored = await deps.store.ignored();
  const ledgers = await own.compare({ marks, retainedSince, ignored, isAll: settledHistory === null });
  if (!ledgers) return { ...nothingRead(history, 'ledger_unreadable'), problems: [own.failure ?? ''], gap };
  const missing = await lacking(deps, ledgers, lastSeenMs(rows, standing));
  const doubt = doubtOf(ledgers, rows, {
    history,
    isContinuous: own.ledger === followedInto,
    hasGap: gap !== null,
    isPatient,
  });
  const problems = ledgers.flatMap(({ folder, faults }) => faults.map(({ message }) => `${folder}: ${message}`));
  const reached = ledgers.flatMap(({ reachesTo }) => reachesTo ?? []).sort();
  const uncertain = ledgers.flatMap(({ isUncertain, name, aliveTo: until }) => (isUncertain ? [{ name, until }] : []));
  const sound = ledgers.filter(isSound);
  const read = sound.find(({ isOwn }) => isOwn)?.ledger ?? null;
  const whole = sound.flatMap(({ isOwn, ledger }) => (isOwn ? [] : [ledger]));
  const damaged = ledgers.find(({ isOwn, faults }) => isOwn && faults.length > 0)?.ledger ?? null;
  const others = ledgers.filter(({ isOwn, isUncertain, faults }) => !isOwn && !isUncertain && faults.length > 0);
  const ended = others.map(({ name, aliveTo: until }) => ({ name, until }));
  const reachesTo = reached.at(-1) ?? null;
  return { history, missing, doubt, problems, reachesTo, uncertain, read, damaged, ended, whole, gap };
}

/**
 * When this database was last known to have everything. What was done in a history that nobody has settled shows nothing of
 * what that lacks.
 */
function lastSeenMs(
  rows: readonly StreamRow[],
  { history, settledHistory }: Pick<Standing, 'history' | 'settledHistory'>,
): number {
  const earlier = rows.filter((row) => settledHistory === history || !(row.history === history || row.is_held));
  return Math.max(...earlier.map((row) => row.seen_at.getTime()));
}

/** What the database lacks of the entries of ledgers, in the order of time. */
async function lacking(
  { store, clock, retention }: ComparisonDeps,
  ledgers: readonly LedgerComparison[],
  seenMs: number,
): Promise<LedgerEntry[]> {
  const months = retention.auditMonths;
  // Events of months that may have been deleted prove nothing by their absence; later than what was seen here, they do.
  const now = new Date(clock.wallMs());
  const sinceMs = months === 0 ? 0 : Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - months, 1);
  const entries = new Map(ledgers.flatMap((ledger) => ledger.entries.map((entry) => [entry.e, entry] as const)));
  const keptMs = Math.min(sinceMs, seenMs - LATE_MS);
  const recent = [...entries.values()].filter(({ t }) => t >= keptMs);
  const missing: LedgerEntry[] = [];
  for (let at = 0; at < recent.length; at += COMPARED_AT_ONCE) {
    const some = recent.slice(at, at + COMPARED_AT_ONCE);
    const ids = await store.lacking(some);
    missing.push(...some.filter(({ e }) => ids.has(e)));
  }
  return missing.sort((a, b) => a.t - b.t || (a.e < b.e ? -1 : 1));
}
