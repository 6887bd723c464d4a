import { REDIS } from '@latchkey/contracts';
import type { Job, JobContext } from '../job.js';

const ROWS = 5_000;

/** Retention; each statement removes at most ROWS rows, oldest first, by an index. */
const RETENTION: readonly string[] = [
  // Denials: 24 hours.
  `DELETE FROM denials WHERE request_id IN
     (SELECT request_id FROM denials WHERE at < now() - interval '24 hours' ORDER BY at LIMIT ${ROWS})`,
  // Numbers of counted batches: a week, far longer than a batch can wait in the stream.
  `DELETE FROM usage_batches WHERE (verifier, sequence) IN
     (SELECT verifier, sequence FROM usage_batches WHERE at < now() - interval '7 days' ORDER BY at LIMIT ${ROWS})`,
  // Hours: thirteen months.
  `DELETE FROM usage_hourly WHERE ctid = ANY(ARRAY
     (SELECT ctid FROM usage_hourly WHERE hour < now() - interval '13 months' ORDER BY hour LIMIT ${ROWS}))`,
  // Callers: 90 days after they were last seen.
  `DELETE FROM usage_callers WHERE ctid = ANY(ARRAY
     (SELECT ctid FROM usage_callers WHERE last_seen < now() - interval '90 days' ORDER BY last_seen LIMIT ${ROWS}))`,
  // Batches sent to the SIEM: only the newest is needed to continue.
  `DELETE FROM siem_batches WHERE from_seq IN (SELECT from_seq FROM siem_batches
     WHERE state = 'sent' AND to_seq < (SELECT max(to_seq) FROM siem_batches) ORDER BY from_seq LIMIT ${ROWS})`,
  // Notices: a year.
  `DELETE FROM notices WHERE id IN (SELECT id FROM notices WHERE at < now() - interval '1 year' ORDER BY at LIMIT ${ROWS})`,
];

/** Callers kept for each token, the latest ones: a caller chooses its user agent. */
export const CALLERS_PER_TOKEN_MAX = 500;

export const pruneUsage: Job = {
  name: 'prune-usage',
  queue: 'usage',
  everyMs: 60_000,
  description: 'Denials older than 24 hours, and usage, callers and notices past their retention, are removed.',
  async step(context) {
    let done = 0;
    let more = false;
    for (const statement of RETENTION) {
      const [, removed] = (await context.database.query(statement)) as [unknown[], number];
      done += removed;
      more ||= removed === ROWS;
    }
    done += await boundCallers(context);
    await removeDeadConsumers(context);
    return { done, more };
  },
};

async function boundCallers({ database }: JobContext): Promise<number> {
  const [, removed] = (await database.query(
    `DELETE FROM usage_callers c USING (
       SELECT token_id, ip, user_agent, row_number() OVER (PARTITION BY token_id ORDER BY last_seen DESC) AS place
       FROM usage_callers WHERE token_id IN (
         SELECT token_id FROM usage_callers WHERE last_seen > now() - interval '1 hour'
         GROUP BY token_id HAVING count(*) > 50)
     ) ranked
     WHERE ranked.place > ${CALLERS_PER_TOKEN_MAX}
       AND (c.token_id, c.ip, c.user_agent) = (ranked.token_id, ranked.ip, ranked.user_agent)`,
  )) as [unknown[], number];
  return removed;
}

/** Each worker process is a consumer of its own; those of dead ones would stay for ever. */
async function removeDeadConsumers({ redis }: JobContext): Promise<void> {
  const consumers = (await redis
    .xinfo('CONSUMERS', REDIS.usage, REDIS.usageGroup)
    .catch((error: Error) => (/no such key|NOGROUP/i.test(error.message) ? [] : Promise.reject(error)))) as unknown[][];
  for (const fields of consumers) {
    const consumer = Object.fromEntries(fields.flatMap((f, i) => (i % 2 ? [] : [[f as string, fields[i + 1]]])));
    const { name, pending, idle } = consumer as { name: string; pending: number; idle: number };
    if (pending === 0 && idle > 3_600_000) await redis.xgroup('DELCONSUMER', REDIS.usage, REDIS.usageGroup, name);
  }
}
