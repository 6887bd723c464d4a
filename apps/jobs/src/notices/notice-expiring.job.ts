import type { Job } from '../job.js';
import { type Notice, raiseNotices } from './notices.service.js';

/** Days before the expiry at which owners are notified, farthest first. */
export const THRESHOLD_DAYS = [30, 7, 1] as const;
const ROWS = 1_000;

/**
 * Each threshold has a watermark: expiry times before it are done. A step scans from the watermark to now plus the
 * threshold, so its cost depends on what comes due. A threshold applies only to tokens that existed before it (a token
 * issued for a week causes no notice of seven days), and after a long stop only the nearest threshold causes a notice.
 */
export const noticeExpiring: Job = {
  name: 'notice-expiring',
  queue: 'notices',
  everyMs: 30_000,
  description: 'Owners are notified of tokens that expire in 30, 7 and 1 days.',
  async step({ database, config }) {
    let done = 0;
    let more = false;
    for (const [index, days] of THRESHOLD_DAYS.entries()) {
      const nearer = THRESHOLD_DAYS[index + 1] ?? 0;
      const full = await database.transaction(async (db) => {
        const name = `expiring:${days}`;
        // At the first run, nothing nearer than the threshold is notified late.
        await db.query(
          `INSERT INTO notice_marks (name, at) VALUES ($1, now() + make_interval(days => $2)) ON CONFLICT DO NOTHING`,
          [name, days],
        );
        const [watermark]: { at: Date }[] = await db.query(
          'SELECT at FROM notice_marks WHERE name = $1 FOR UPDATE SKIP LOCKED',
          [name],
        );
        if (!watermark) return false; // another worker has the lock
        const due: { id: string; expires_at: Date }[] = await db.query(
          `SELECT id, expires_at FROM tokens
           WHERE revoked_at IS NULL AND rotated_to IS NULL
             AND expires_at > greatest($1::timestamptz - interval '10 minutes', now() + make_interval(days => $3))
             AND expires_at <= now() + make_interval(days => $2)
             AND created_at < expires_at - make_interval(days => $2) - interval '1 hour'
             AND NOT EXISTS (SELECT FROM notices n WHERE n.key = 'expiring:' || $2 || ':' || tokens.id)
           ORDER BY expires_at LIMIT ${ROWS}`,
          [watermark.at, days, nearer],
        );
        const notices = due.map(
          (t): Notice => ({
            key: `expiring:${days}:${t.id}`,
            kind: 'expiring',
            tokenId: t.id,
            details: { days, expiresAt: t.expires_at.toISOString() },
          }),
        );
        done += await raiseNotices(db, config, notices);
        const last = due.at(-1);
        if (due.length === ROWS && last)
          await db.query('UPDATE notice_marks SET at = greatest(at, $2) WHERE name = $1', [name, last.expires_at]);
        else
          await db.query(
            'UPDATE notice_marks SET at = greatest(at, now() + make_interval(days => $2)) WHERE name = $1',
            [name, days],
          );
        return due.length === ROWS;
      });
      more ||= full;
    }
    return { done, more };
  },
};
