import { REDIS } from '@latchkey/contracts';
import type { Logger } from '@latchkey/runtime';
import type { Queue } from 'bullmq';
import type { Redis } from 'ioredis';
import type { DataSource } from 'typeorm';
import type { JobMetrics } from './metrics.service.js';

/** Failed jobs are kept for the board much longer; a gauge that they keep up could raise no alert. */
const FAILED_MS = 600_000;
const FAILED_HELP = 'Jobs in a queue by state; failed: those whose last attempt failed within ten minutes';

/** Gauges of the queues and of PostgreSQL in `/metrics`. */
export function watch(
  metrics: JobMetrics,
  queues: readonly Queue[],
  redis: Redis,
  database: DataSource,
  logger: Logger,
): void {
  /** What is unavailable is left out, so that the rest can still be read. */
  const reading = (what: string, read: () => Promise<void>) => async () => {
    try {
      await read();
    } catch (error) {
      logger.debug({ what, reason: (error as Error).message }, 'reading a metric failed');
    }
  };
  metrics.gauge('latchkey_queue_jobs', FAILED_HELP, ['queue', 'state'], (gauge) =>
    reading('queues', async () => {
      for (const queue of queues) {
        const counts = await queue.getJobCounts('waiting', 'active', 'delayed', 'prioritized');
        for (const [state, count] of Object.entries(counts)) gauge.set({ queue: queue.name, state }, count);
        const failed = await redis.zcount(queue.toKey('failed'), Date.now() - FAILED_MS, '+inf');
        gauge.set({ queue: queue.name, state: 'failed' }, failed);
      }
    })(),
  );
  metrics.gauge(
    'latchkey_queue_oldest_seconds',
    'Age of the job that has waited longest for a worker',
    ['queue'],
    (gauge) =>
      reading('queues', async () => {
        for (const queue of queues) {
          const [oldest] = await queue.getWaiting(0, 0);
          const since = oldest ? oldest.timestamp + (oldest.opts.delay ?? 0) : Date.now();
          gauge.set({ queue: queue.name }, Math.max(0, Date.now() - since) / 1000);
        }
      })(),
  );
  metrics.gauge('latchkey_usage_stream_length', 'Usage batches not yet processed', [], (gauge) =>
    reading('usage stream', async () => gauge.set(await redis.xlen(REDIS.usage)))(),
  );
  const fromSql: [name: string, help: string, sql: string][] = [
    [
      'latchkey_audit_unsealed_seconds',
      'Age of the oldest audit event that is not sealed',
      `SELECT coalesce(extract(epoch FROM now() - min(e.at)), 0)::float8 AS value FROM audit_events e
       WHERE e.xid >= coalesce((SELECT h.xid FROM audit_links l JOIN audit_events h ON h.id = l.event_id AND h.at = l.event_at
           ORDER BY l.seq DESC LIMIT 1), '0'::xid8)
         AND (SELECT true FROM audit_links l WHERE l.event_id = e.id) IS NULL`,
    ],
    [
      'latchkey_notices_waiting',
      'Deliveries of notices that are due or waiting for a retry',
      "SELECT count(*)::float8 AS value FROM notice_deliveries WHERE state = 'due'",
    ],
    [
      'latchkey_notices_dead',
      'Deliveries of notices that failed for good',
      "SELECT count(*)::float8 AS value FROM notice_deliveries WHERE state = 'dead'",
    ],
    [
      'latchkey_siem_dead_letters',
      'Batches of audit events whose delivery to the SIEM failed for good',
      "SELECT count(*)::float8 AS value FROM siem_batches WHERE state = 'dead'",
    ],
    [
      'latchkey_expiry_overdue_seconds',
      'Longest time for which a token past its expiry has not been recorded as expired',
      `SELECT coalesce(extract(epoch FROM now() - least(
         (SELECT t.expires_at FROM tokens t WHERE (t.expires_at, t.id) > (SELECT at, token_id FROM expiry_mark)
            AND t.expires_at <= now() AND t.revoked_at IS NULL AND t.expires_at IS NOT NULL ORDER BY t.expires_at, t.id LIMIT 1),
         (SELECT min(ends_at) FROM expiry_soon WHERE ends_at <= now()))), 0)::float8 AS value`,
    ],
  ];
  for (const [name, help, sql] of fromSql)
    metrics.gauge(name, help, [], (gauge) =>
      reading(name, async () => {
        const [row] = (await database.query(sql)) as { value: number }[];
        gauge.set(row!.value);
      })(),
    );
}
