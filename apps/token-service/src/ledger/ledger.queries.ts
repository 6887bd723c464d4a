import { HISTORY, HISTORY_ID, IS_CURRENT } from '../database/index.js';
import type { LedgerSource } from './entry.js';

/** Ledgers whose process has written to the database within this time are alive. */
export const ALIVE_SECONDS = 60;

export interface FollowRow {
  history: string;
  is_current: boolean;
  /** The history in which tokens are answered without reservation. */
  settled_history: string | null;
  /** Tokens from before are not accepted in this history until an administrator has decided. */
  is_held: boolean;
  /** Since when it is doubted that this database is whole; null: it is not. */
  doubted_at: Date | null;
  /** Server, timeline and database of this history, and of the settled one. */
  incarnation: string;
  settled_incarnation: string | null;
  at: Date;
  xmin: string;
  /** Other ledgers that are alive. */
  peers: string[];
  events: (Omit<LedgerSource, 'at'> & { at: number; xid: string })[] | null;
}

/**
 * In: cursor, time before which no event is looked for, actions, most events, own ledger. Out: where the database stands,
 * and the events from the cursor on.
 */
export const FOLLOW = `SELECT ${HISTORY}, ${IS_CURRENT} AS is_current, l.settled_history,
    EXISTS (SELECT FROM restores r WHERE r.history = ${HISTORY_ID} AND r.settled_at IS NULL AND r.reason IS NOT NULL
      AND l.restored_before IS NOT NULL) AS is_held,
    l.doubted_at, l.incarnation,
    l.settled_incarnation, now() AS at,
    pg_snapshot_xmin(pg_current_snapshot())::text AS xmin,
    ARRAY(SELECT DISTINCT s.ledger FROM ledger_streams s WHERE s.ledger <> $5::uuid AND s.ended_at IS NULL
      AND s.seen_at > now() - interval '${ALIVE_SECONDS} seconds') AS peers,
    (SELECT jsonb_agg(jsonb_build_object('id', e.id, 'at', (extract(epoch FROM e.at) * 1000)::bigint, 'action', e.action,
        'subject_id', e.subject_id, 'token_id', e.token_id, 'project_id', e.project_id, 'details', e.details,
        'xid', e.xid::text) ORDER BY e.xid, e.id)
      FROM (SELECT * FROM audit_events WHERE xid >= $1::text::xid8 AND at >= $2 AND at < now() + interval '1 day'
        AND action = ANY ($3) ORDER BY xid, id LIMIT $4) e) AS events
  FROM invalidation_log l`;

export interface StreamRow {
  stream: string;
  ledger: string;
  sequence: string;
  mac: string;
  history: string;
  cursor_xid: string | null;
  seen_at: Date;
  compared_history: string | null;
}

/** Out: how far the database has seen each stream. */
export const SELECT_STREAMS = `SELECT stream, ledger, sequence::text AS sequence, mac, history, cursor_xid::text AS cursor_xid,
  seen_at, compared_history FROM ledger_streams`;

/** In: stream, ledger, place, history, cursor; history that it was compared with. Only in that history. */
export const MOVE_MARK = `INSERT INTO ledger_streams AS s (stream, ledger, sequence, mac, history, cursor_xid, seen_at, compared_history)
  SELECT $1, $2, $3, $4, $5, $6::text::xid8, now(), $7 FROM invalidation_log l WHERE ${HISTORY_ID} = $5 AND ${IS_CURRENT}
  ON CONFLICT (stream) DO UPDATE SET sequence = excluded.sequence, mac = excluded.mac, history = excluded.history,
    cursor_xid = excluded.cursor_xid, seen_at = now(), compared_history = excluded.compared_history, ended_at = NULL`;

export const END_STREAM = 'UPDATE ledger_streams SET ended_at = now(), seen_at = now() WHERE stream = $1';

/** In: days. Removes marks of streams that no ledger keeps any more. */
export const PRUNE_STREAMS = `DELETE FROM ledger_streams WHERE seen_at < now() - $1 * interval '1 day'`;

/** Out: the time of the newest event that this database has. */
export const SELECT_NEWEST = 'SELECT max(at) AS at FROM audit_events';

/** In: events with their times. Out: those that this history lacks and that no restore has dealt with. */
export const SELECT_MISSING = `SELECT e.id FROM unnest($1::uuid[], $2::timestamptz[]) AS e(id, at)
  WHERE NOT EXISTS (SELECT FROM audit_events a WHERE a.id = e.id AND a.at = e.at)
    AND NOT EXISTS (SELECT FROM ledger_replays r WHERE r.event_id = e.id)`;
