import { IDLE_SCAN_NAMES, IDLE_SCANS, type IdleScan } from '@latchkey/runtime';
import type { EntityManager } from 'typeorm';
import { type Job, NOTHING } from '../job.js';
import { raiseNotices } from './notices.service.js';

const ROWS = 1_000;
const DAY_MS = 86_400_000;
/** Days between the warning and the revocation; half the policy's limit when that is shorter. */
export const WARNING_DAYS = 7;

/** One warning each time that a token becomes idle: the key of the notice contains the last use. */
export const warnIdle: Job = {
  name: 'warn-idle',
  queue: 'notices',
  everyMs: 60_000,
  description: 'Owners are notified of tokens that the policy will revoke because they are not used.',
  async step({ database, config }) {
    let done = 0;
    let more = false;
    for (const scan of IDLE_SCAN_NAMES) {
      const report = await database.transaction(async (db) => {
        const span = await spanOf(db, scan);
        if (!span) return NOTHING;
        const idle: { id: string; since: Date }[] = await db.query(IDLE_SCANS[scan], [span.from, span.to, ROWS]);
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
          scan,
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

/** From the end of the last scan to where a warning is due; undefined without a policy, or while another worker scans. */
async function spanOf(
  db: EntityManager,
  scan: IdleScan,
): Promise<{ from: Date; to: Date; idleDays: number } | undefined> {
  const [policy]: { idle_days: number | null }[] = await db.query('SELECT idle_days FROM policy');
  if (!policy?.idle_days) return undefined;
  await db.query("INSERT INTO notice_marks (name, at) VALUES ($1, 'epoch') ON CONFLICT DO NOTHING", [scan]);
  const [watermark]: { at: Date }[] = await db.query(
    'SELECT at FROM notice_marks WHERE name = $1 FOR UPDATE SKIP LOCKED',
    [scan],
  );
  const aheadMs = Math.min(WARNING_DAYS, policy.idle_days / 2) * DAY_MS;
  return (
    watermark && {
      from: watermark.at,
      to: new Date(Date.now() - policy.idle_days * DAY_MS + aheadMs),
      idleDays: policy.idle_days,
    }
  );
}
