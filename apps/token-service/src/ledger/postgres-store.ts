import { Injectable } from '@nestjs/common';
import { Database, HISTORY, HISTORY_ID, IS_CURRENT } from '../database/index.js';
import { LEDGER_ACTIONS, type LedgerEntry } from './entry.js';
import type { FollowRow, IgnoredLedger, LedgerStore, StreamMark, StreamRow } from './store.js';

/** Ledgers whose process has written to the database within this time are alive. */
const ALIVE_SECONDS = 60;
/** Of the row `s` of ledger_streams. */
const IS_ALIVE = `(s.ended_at IS NULL AND s.seen_at > now() - interval '${ALIVE_SECONDS} seconds')`;

/**
 * In: cursor, time before which no event is looked for, actions, most events, own ledger. Out: where the database stands,
 * and the events from the cursor on.
 */
const FOLLOW = `SELECT ${HISTORY}, ${IS_CURRENT} AS is_current, l.settled_history,
    EXISTS (SELECT FROM restores r WHERE r.history = ${HISTORY_ID} AND r.settled_at IS NULL AND r.reason IS NOT NULL
      AND l.restored_before IS NOT NULL) AS is_held,
    EXISTS (SELECT FROM restores r WHERE r.history = ${HISTORY_ID}) AS is_restored,
    (SELECT settled_at FROM restores r WHERE r.history = ${HISTORY_ID} AND r.choice IN ('revoke', 'accept')) AS decided_at,
    l.restored_before IS NOT NULL AS is_unsettled,
    l.incarnation,
    l.settled_incarnation, now() AS at,
    pg_snapshot_xmin(pg_current_snapshot())::text AS xmin,
    ARRAY(SELECT DISTINCT s.ledger FROM ledger_streams s WHERE s.ledger <> $5::uuid AND ${IS_ALIVE}) AS peers,
    (SELECT jsonb_agg(jsonb_build_object('id', e.id, 'at', (extract(epoch FROM e.at) * 1000)::bigint, 'action', e.action,
        'subject_id', e.subject_id, 'token_id', e.token_id, 'project_id', e.project_id, 'details', e.details,
        'xid', e.xid::text) ORDER BY e.xid, e.id)
      FROM (SELECT * FROM audit_events WHERE xid >= $1::text::xid8 AND at >= $2 AND at < now() + interval '1 day'
        AND action = ANY ($3) ORDER BY xid, id LIMIT $4) e) AS events
  FROM invalidation_log l`;

/** Out: how far the database has seen each stream. */
const SELECT_STREAMS = `SELECT stream, ledger, sequence::text AS sequence, mac, history, cursor_xid::text AS cursor_xid,
  seen_at, settled_seen_at, compared_history, is_settled,
  EXISTS (SELECT FROM restores r WHERE r.history = s.history AND r.settled_at IS NULL) AS is_held FROM ledger_streams s`;

/** In: stream, ledger, place, history, cursor; history that it was compared with. Only in that history. */
const MOVE_MARK = `INSERT INTO ledger_streams AS s (stream, ledger, sequence, mac, history, cursor_xid, seen_at, compared_history,
    is_settled, settled_seen_at)
  SELECT $1, $2, $3, $4, $5, $6::text::xid8, now(), $7, l.settled_history IS NOT DISTINCT FROM $5,
    CASE WHEN l.settled_history IS NOT DISTINCT FROM $5 THEN now() END FROM invalidation_log l WHERE ${HISTORY_ID} = $5 AND ${IS_CURRENT}
  ON CONFLICT (stream) DO UPDATE SET sequence = excluded.sequence, mac = excluded.mac, history = excluded.history,
    cursor_xid = excluded.cursor_xid, seen_at = now(), compared_history = excluded.compared_history,
    is_settled = s.is_settled OR excluded.is_settled, settled_seen_at = coalesce(excluded.settled_seen_at, s.settled_seen_at),
    ended_at = NULL`;

/** In: ledgers, history. Only in that history. */
const MARK_COMPARED = `UPDATE ledger_streams s SET compared_history = $2 FROM invalidation_log l
  WHERE s.ledger = ANY ($1::uuid[]) AND ${HISTORY_ID} = $2 AND ${IS_CURRENT}`;

/** In: names; when they were last alive. */
const IGNORE = `INSERT INTO ledgers_ignored (name, alive_until) SELECT * FROM unnest($1::text[], $2::timestamptz[])
  ON CONFLICT (name) DO UPDATE SET alive_until = excluded.alive_until`;

const END_STREAM = 'UPDATE ledger_streams SET ended_at = now() WHERE stream = $1';

/** In: days. Removes marks of streams that no ledger keeps any more. */
const PRUNE_STREAMS = `DELETE FROM ledger_streams WHERE seen_at < now() - $1 * interval '1 day'`;

/**
 * In a settled history, unless a process keeps a ledger now. How far each was followed stays, for one that is kept again: it
 * lacks what came meanwhile.
 */
const FORGET_STREAMS = `UPDATE ledger_streams f SET is_settled = false FROM invalidation_log l
  WHERE f.is_settled AND l.settled_history = ${HISTORY_ID} AND ${IS_CURRENT} AND NOT EXISTS (SELECT FROM ledger_streams s WHERE ${IS_ALIVE})`;

/** In: events with their times. Out: those that this history lacks and that no restore has dealt with. */
const SELECT_MISSING = `SELECT e.id FROM unnest($1::uuid[], $2::timestamptz[]) AS e(id, at)
  WHERE NOT EXISTS (SELECT FROM audit_events a WHERE a.id = e.id AND a.at = e.at)
    AND NOT EXISTS (SELECT FROM ledger_replays r WHERE r.event_id = e.id)`;

/** The only file here with SQL. */
@Injectable()
export class PostgresLedgerStore implements LedgerStore {
  constructor(private readonly db: Database) {}

  async place(): Promise<{ name: string; database: string; at: Date }> {
    const [row] = await this.db.query<{ name: string; database: string; at: Date }>(
      `SELECT system_identifier || '-' || current_database() AS name, l.database, now() AS at
       FROM pg_control_system(), invalidation_log l`,
    );
    return row!;
  }

  async follow({ cursor, from, limit, ledger }: Parameters<LedgerStore['follow']>[0]): Promise<FollowRow> {
    const values = [cursor, from, LEDGER_ACTIONS, limit, ledger];
    const [row] = await this.db.prepared<FollowRow>('ledger-follow', FOLLOW, values);
    return row!;
  }

  streams(): Promise<StreamRow[]> {
    return this.db.prepared<StreamRow>('ledger-streams', SELECT_STREAMS, []);
  }

  async lacking(entries: readonly LedgerEntry[]): Promise<Set<string>> {
    const values = [entries.map(({ e }) => e), entries.map(({ t }) => new Date(t))];
    const found = await this.db.prepared<{ id: string }>('ledger-missing', SELECT_MISSING, values);
    return new Set(found.map(({ id }) => id));
  }

  async moveMark(mark: StreamMark): Promise<void> {
    const { stream, ledger, sequence, mac, history, cursor, comparedHistory } = mark;
    const values = [stream, ledger, sequence, mac, history, cursor, comparedHistory];
    await this.db.prepared('ledger-mark', MOVE_MARK, values);
  }

  async endStream(stream: string): Promise<void> {
    await this.db.prepared('ledger-end', END_STREAM, [stream]);
  }

  async compared(ledgers: readonly string[], history: string): Promise<void> {
    await this.db.query(MARK_COMPARED, [ledgers, history]);
  }

  async ignored(): Promise<IgnoredLedger[]> {
    const rows = await this.db.query<{ name: string; until: Date }>(
      'SELECT name, alive_until AS until FROM ledgers_ignored',
    );
    return rows.map(({ name, until }) => ({ name, until: until.getTime() }));
  }

  async ignore(ledgers: readonly IgnoredLedger[]): Promise<void> {
    await this.db.query(IGNORE, [ledgers.map(({ name }) => name), ledgers.map(({ until }) => new Date(until))]);
  }

  async prune(days: number): Promise<void> {
    await this.db.query(PRUNE_STREAMS, [days]);
  }

  async forget(): Promise<boolean> {
    await this.db.query(FORGET_STREAMS, []);
    return (await this.streams()).every((row) => !row.is_settled);
  }
}
