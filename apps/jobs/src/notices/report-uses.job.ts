import { type Job, NOTHING } from '../job.js';

const ROWS = 50;

/** The token-service writes each use once, however often it is reported; `reported_at` is set afterwards. */
export const reportUses: Job = {
  name: 'report-uses',
  queue: 'notices',
  everyMs: 5_000,
  description: 'Uses of a token after its rotation are written to the audit log, once for each token.',
  async step({ database, maintenance }) {
    const uses: { id: string; token_id: string; ip: string }[] = await database.query(
      `SELECT id, token_id, details ->> 'ip' AS ip FROM notices
       WHERE kind = 'used_after_rotation' AND reported_at IS NULL ORDER BY at LIMIT ${ROWS}`,
    );
    if (uses.length === 0) return NOTHING;
    for (const use of uses) {
      await maintenance.reportUse({ tokenId: use.token_id, kind: 'used_after_rotation', ip: use.ip ?? '' });
      await database.query('UPDATE notices SET reported_at = now() WHERE id = $1', [use.id]);
    }
    return { done: uses.length, more: uses.length === ROWS };
  },
};
