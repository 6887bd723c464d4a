import { type Job, NOTHING } from '../job.js';
import { type Notice, raiseNotices } from './notices.service.js';

const ROWS = 500;

interface SealedEvent {
  seq: string;
  id: string;
  action: string;
  actor_type: 'user' | 'token' | 'system';
  actor_name: string;
  actor_user_id: string | null;
  token_id: string;
  details: { reason?: unknown; as?: unknown };
}

/**
 * Follows the sealed chain by sequence number, so that no event is missed or read out of order; the watermark moves in
 * the transaction that writes the notices.
 */
export const followAudit: Job = {
  name: 'follow-audit',
  queue: 'notices',
  everyMs: 1_000,
  description:
    'Owners are notified of tokens that expired, were revoked by somebody else, or were reported as exposed.',
  step: ({ database, config }) =>
    database.transaction(async (db) => {
      // No notices of what happened before this service first ran.
      await db.query(
        `INSERT INTO notice_marks (name, seq) SELECT 'audit', coalesce(max(seq), 0) FROM audit_links
         ON CONFLICT DO NOTHING`,
      );
      const [watermark]: { seq: string }[] = await db.query(
        "SELECT seq FROM notice_marks WHERE name = 'audit' FOR UPDATE SKIP LOCKED",
      );
      if (!watermark) return NOTHING; // another worker has the lock
      const [span]: { last: string | null; rows: number }[] = await db.query(
        `SELECT max(seq) AS last, count(*)::int AS rows FROM
           (SELECT seq FROM audit_links WHERE seq > $1 ORDER BY seq LIMIT ${ROWS}) AS next`,
        [watermark.seq],
      );
      if (!span?.last) return NOTHING;
      const events: SealedEvent[] = await db.query(
        `SELECT l.seq, e.id, e.action, e.actor_type, e.actor_name, e.token_id, e.details,
           CASE e.actor_type WHEN 'user' THEN e.actor_id WHEN 'token' THEN
             (SELECT owner_user_id FROM tokens WHERE id = e.actor_id) END AS actor_user_id
         FROM audit_links l JOIN audit_events e ON e.id = l.event_id AND e.at = l.event_at
         WHERE l.seq > $1 AND l.seq <= $2 AND e.action IN ('token.expired', 'token.revoked', 'token.reported') AND e.token_id IS NOT NULL
         ORDER BY l.seq`,
        [watermark.seq, span.last],
      );
      await raiseNotices(db, config, events.flatMap(noticeOf));
      await db.query("UPDATE notice_marks SET seq = $1 WHERE name = 'audit'", [span.last]);
      return { done: span.rows, more: span.rows === ROWS };
    }),
};

function noticeOf(event: SealedEvent): Notice[] {
  const notice = (kind: Notice['kind'], details: Notice['details']): Notice[] => [
    { key: `${kind}:${event.id}`, kind, tokenId: event.token_id, details },
  ];
  if (event.action === 'token.expired') return notice('expired', {});
  if (event.action === 'token.reported') return notice('reported', {});
  const reason = typeof event.details.reason === 'string' ? event.details.reason : 'unspecified';
  // One notice about the exposed token covers its descendants and their successors, of which a thief can have made
  // thousands.
  if (reason === 'exposed' && (event.details.as === 'descendant' || event.details.as === 'successor')) return [];
  if (reason === 'exposed') return notice('exposed', { by: event.actor_name });
  // The owner asked for the end of the overlap.
  if (reason === 'superseded' && event.actor_type === 'system') return [];
  return notice('revoked', { by: event.actor_name, byUserId: event.actor_user_id, reason });
}
