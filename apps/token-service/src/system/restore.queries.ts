import type { Restore } from '@latchkey/contracts';
import { HISTORY_ID, IS_CURRENT, type Statement } from '../database/index.js';

/** In: a ledger; null: all. It does not vouch until a history is settled: what it could not write may be in none. */
export const distrustLedgers = (ledger: string | null): Statement => [
  'UPDATE ledger_streams SET is_settled = false WHERE is_settled AND ($1::uuid IS NULL OR ledger = $1)',
  [ledger],
];

export interface RestoreRow {
  id: string;
  history: string;
  detected_at: Date;
  newest_event_at: Date | null;
  reason: Restore['reason'];
  ledger_reaches_to: Date | null;
  reapplied: number;
  must_set_password: number;
  sessions_ended: number;
  not_reapplied: Restore['notReapplied'];
  settled_at: Date | null;
  choice: Restore['choice'];
}

export const toRestore = (row: RestoreRow): Restore => ({
  id: row.id,
  detectedAt: row.detected_at.toISOString(),
  newestEventAt: row.newest_event_at?.toISOString() ?? null,
  state: row.settled_at ? 'settled' : 'unsettled',
  reason: row.reason,
  ledgerReachesTo: row.ledger_reaches_to?.toISOString() ?? null,
  reapplied: row.reapplied,
  mustSetPassword: row.must_set_password,
  sessionsEnded: row.sessions_ended,
  notReapplied: row.not_reapplied,
  settledAt: row.settled_at?.toISOString() ?? null,
  choice: row.choice,
});

/** Out: the latest restore, if there was one. */
export const SELECT_RESTORE = 'SELECT * FROM restores ORDER BY detected_at DESC LIMIT 1';

/** Out: the restores about which nobody has decided. */
export const SELECT_UNSETTLED: Statement = ['SELECT * FROM restores WHERE settled_at IS NULL ORDER BY detected_at'];

export interface LockedLog {
  history: string;
  is_current: boolean;
  settled_history: string | null;
  restored_before: Date | null;
}

/** Out: where the database stands; replicas that decide about a history do so one after the other. */
export const LOCK_LOG: Statement = [
  `SELECT ${HISTORY_ID} AS history, ${IS_CURRENT} AS is_current, l.settled_history, l.restored_before
   FROM invalidation_log l FOR UPDATE`,
];

/** In: history. From now on all tokens are answered; the ledgers that were compared with it are known to it. */
export const settleLog = (history: string): Statement[] => [
  [
    `UPDATE invalidation_log SET settled_history = $1, settled_incarnation = incarnation, restored_before = NULL`,
    [history],
  ],
  ['UPDATE ledger_streams SET is_settled = true, settled_seen_at = seen_at WHERE compared_history = $1', [history]],
];

/** In: when. Tokens and sessions from before, and all that there are now, are not accepted: clocks differ. */
export const holdBefore = (at: Date): Statement => [
  `UPDATE invalidation_log SET restored_before = greatest($1::timestamptz,
     (SELECT max(created_at) + interval '1 millisecond' FROM tokens),
     (SELECT max(created_at) + interval '1 millisecond' FROM sessions))`,
  [at],
];

/** In: history. Out: its restore, if it was noticed. */
export const selectRestoreOf = (history: string): Statement => ['SELECT * FROM restores WHERE history = $1', [history]];

/** In: id, history, when, why. Records a restore, with the time of the newest event before it. */
export const insertRestore = (
  id: string,
  history: string,
  at: Date,
  reason: string | null,
  reachesTo: string | null,
): Statement => [
  `INSERT INTO restores (id, history, detected_at, newest_event_at, reason, ledger_reaches_to)
   SELECT $1, $2, $3, (SELECT max(at) FROM audit_events WHERE at < $3::timestamptz), $4, $5`,
  [id, history, at, reason, reachesTo],
];

/** In: restore; what was done. */
export const addToRestore = (
  id: string,
  done: Pick<Restore, 'reapplied' | 'mustSetPassword' | 'sessionsEnded' | 'notReapplied'>,
): Statement => [
  `UPDATE restores SET reapplied = reapplied + $2, must_set_password = must_set_password + $3,
     sessions_ended = sessions_ended + $4, not_reapplied = not_reapplied || $5::jsonb WHERE id = $1`,
  [id, done.reapplied, done.mustSetPassword, done.sessionsEnded, JSON.stringify(done.notReapplied)],
];

export const settleRestoreRow = (id: string, choice: NonNullable<Restore['choice']>, at: Date): Statement => [
  'UPDATE restores SET settled_at = $3, choice = $2 WHERE id = $1',
  [id, choice, at],
];

/** In: audit events that a restore has dealt with. */
export const insertReplays = (restoreId: string, eventIds: readonly string[]): Statement => [
  'INSERT INTO ledger_replays (event_id, restore_id) SELECT id, $1 FROM unnest($2::uuid[]) AS e(id) ON CONFLICT DO NOTHING',
  [restoreId, eventIds],
];

/** In: audit events. Out: those that a restore has dealt with. */
export const selectReplayed = (eventIds: readonly string[]): Statement => [
  'SELECT event_id FROM ledger_replays WHERE event_id = ANY ($1)',
  [eventIds],
];

/** In: people. Out: those that had one. Their password must be set anew, with a code. */
export const dropPasswords = (ids: readonly string[]): Statement => [
  'UPDATE users SET password_hash = NULL WHERE id = ANY ($1) AND password_hash IS NOT NULL RETURNING id, name',
  [ids],
];

/** In: person to leave out. The same for all others. */
export const dropAllPasswords = (except: string): Statement => [
  'UPDATE users SET password_hash = NULL WHERE id <> $1 AND password_hash IS NOT NULL RETURNING id, name',
  [except],
];

/** In: people. What proves who they are besides a password. */
export const dropSecondFactors = (ids: readonly string[]): Statement[] => [
  ['DELETE FROM recovery_codes WHERE user_id = ANY ($1)', [ids]],
  ['DELETE FROM second_factors WHERE user_id = ANY ($1)', [ids]],
];

/** Out: a row for each session, which has ended. */
export const END_SESSIONS: Statement = ['DELETE FROM sessions RETURNING 1'];

/** In: when. Out: a row for each session from before it, which has ended. Codes end too. */
export const endSessionsBefore = (at: Date): Statement => [
  'DELETE FROM sessions WHERE created_at < $1 RETURNING 1',
  [at],
];
export const DROP_RESET_CODES: Statement = ['DELETE FROM password_resets'];

/** In: when. Tokens issued since then, and not revoked, are of the generation that has just been begun. */
export const keepIssuedSince = (at: Date): Statement => [
  `UPDATE tokens SET generation = generation + 1
   WHERE created_at >= $1 AND revoked_at IS NULL AND generation = (SELECT current - 1 FROM token_generation)`,
  [at],
];
