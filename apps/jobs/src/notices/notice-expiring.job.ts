import type { Job } from '../job.js';
import { type Notice, raiseNotices } from './notices.service.js';

/** Days before the end at which people hear of it, farthest first. */
export const THRESHOLD_DAYS = [30, 7, 1] as const;
const ROWS = 1_000;

/**
 * Each threshold has a mark: ends before it were looked at. A step looks from the mark to now plus the threshold, so
 * its cost follows what comes due. A token is heard of at a threshold only if it was there before (one made for a week
 * does not announce its seven days), and after a long stop only the nearest threshold speaks.
 */
export const noticeExpiring: Job = {
  name: 'notice-expiring',
  queue: 'notices',
  everyMs: 30_000,
  description: 'Owners hear of tokens that expire in 30, 7 and 1 days.',
  async step({ database, config }) {
    let done = 0;
    let more = false;
    for (const [place, days] of THRESHOLD_DAYS.entries()) {
      const nearer = THRESHOLD_DAYS[place + 1] ?? 0;
      const full = await database.transaction(async (db) => {
        const mark = `expiring:${days}`;
        // Starting out, nothing that lies nearer than the threshold is announced late.
        await db.query(
          `INSERT INTO notice_marks (name, at) VALUES ($1, now() + make_interval(days => $2)) ON CONFLICT DO NOTHING`,
          [mark, days],
        );
        const [at] = (await db.query('SELECT at FROM notice_marks WHERE name = $1 FOR UPDATE SKIP LOCKED', [mark])) as {
          at: Date;
        }[];
        if (!at) return false; // another worker is at it
        const due: { id: string; expires_at: Date }[] = await db.query(
          `SELECT id, expires_at FROM tokens
           WHERE revoked_at IS NULL AND rotated_to IS NULL
             AND expires_at > greatest($1::timestamptz - interval '10 minutes', now() + make_interval(days => $3))
             AND expires_at <= now() + make_interval(days => $2)
             AND created_at < expires_at - make_interval(days => $2) - interval '1 hour'
             AND NOT EXISTS (SELECT FROM notices n WHERE n.key = 'expiring:' || $2 || ':' || tokens.id)
           ORDER BY expires_at LIMIT ${ROWS}`,
          [at.at, days, nearer],
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
          await db.query('UPDATE notice_marks SET at = greatest(at, $2) WHERE name = $1', [mark, last.expires_at]);
        else
          await db.query(
            'UPDATE notice_marks SET at = greatest(at, now() + make_interval(days => $2)) WHERE name = $1',
            [mark, days],
          );
        return due.length === ROWS;
      });
      more ||= full;
    }
    return { done, more };
  },
};
