import type { EntityManager } from 'typeorm';
import { type Job, NOTHING } from '../job.js';
import { raiseNotices } from './notices.service.js';

const ROWS = 1_000;
const DAY_MS = 86_400_000;
/** Days before the revocation at which people are warned; half the policy's span when that is shorter. */
export const WARNING_DAYS = 7;

/** As the token-service finds idle tokens, so many days ahead. In: `$1` from, `$2` to. */
const LOOKS = {
  'idle since last use': `SELECT t.id, u.last_used_at AS since FROM token_usage u JOIN tokens t ON t.id = u.token_id
     WHERE u.last_used_at >= $1 AND u.last_used_at < $2 AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
     ORDER BY u.last_used_at LIMIT ${ROWS}`,
  'idle since issue': `SELECT t.id, t.created_at AS since FROM tokens t
     WHERE t.created_at >= $1 AND t.created_at < $2 AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
       AND NOT EXISTS (SELECT FROM token_usage u WHERE u.token_id = t.id)
     ORDER BY t.created_at LIMIT ${ROWS}`,
} as const;

/** A token is warned about once for each time that it falls idle: the notice names when it was last used. */
export const warnIdle: Job = {
  name: 'warn-idle',
  queue: 'notices',
  everyMs: 60_000,
  description: 'Owners hear of tokens that the policy will revoke because nobody uses them.',
  async step({ database, config }) {
    let done = 0;
    let more = false;
    for (const look of Object.keys(LOOKS) as (keyof typeof LOOKS)[]) {
      const report = await database.transaction(async (db) => {
        const span = await spanOf(db, look);
        if (!span) return NOTHING;
        const idle: { id: string; since: Date }[] = await db.query(LOOKS[look], [span.from, span.to]);
        const raised = await raiseNotices(
          db,
          config,
          idle.map(({ id, since }) => ({
            key: `idle:${id}:${since.getTime()}`,
            kind: 'idle' as const,
            tokenId: id,
            details: {
              since: since.toISOString(),
              revokedOn: new Date(since.getTime() + span.idleDays * DAY_MS).toISOString().slice(0, 10),
            },
          })),
        );
        const full = idle.length === ROWS && idle.at(-1)!.since > idle[0]!.since;
        await db.query('UPDATE notice_marks SET at = greatest(at, $2) WHERE name = $1', [
          look,
          full ? idle.at(-1)!.since : span.to,
        ]);
        return { done: raised, more: full };
      });
      done += report.done;
      more ||= report.more;
    }
    return { done, more };
  },
};

/** From where the last look ended to where a warning is due; nothing without a policy, or while another worker looks. */
async function spanOf(
  db: EntityManager,
  look: string,
): Promise<{ from: Date; to: Date; idleDays: number } | undefined> {
  const [policy]: { idle_days: number | null }[] = await db.query('SELECT idle_days FROM policy');
  if (!policy?.idle_days) return undefined;
  await db.query("INSERT INTO notice_marks (name, at) VALUES ($1, 'epoch') ON CONFLICT DO NOTHING", [look]);
  const [mark]: { at: Date }[] = await db.query('SELECT at FROM notice_marks WHERE name = $1 FOR UPDATE SKIP LOCKED', [
    look,
  ]);
  const aheadMs = Math.min(WARNING_DAYS, policy.idle_days / 2) * DAY_MS;
  return (
    mark && {
      from: mark.at,
      to: new Date(Date.now() - policy.idle_days * DAY_MS + aheadMs),
      idleDays: policy.idle_days,
    }
  );
}
