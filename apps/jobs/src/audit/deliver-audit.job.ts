import { ADVISORY_LOCKS } from '@latchkey/contracts';
import { type AuditRow, EVENT_COLUMNS, toEvent } from '@latchkey/runtime';
import type { QueryRunner } from 'typeorm';
import { type Job, type JobContext, NOTHING, type StepReport } from '../job.js';
import { postWebhook } from '../webhooks/index.js';

const EVENTS_PER_BATCH = 100;

interface Batch {
  from_seq: string;
  to_seq: string;
  attempts: number;
  state: 'due' | 'sent' | 'dead';
}

/**
 * Sends the sealed chain to a SIEM in order, batch by batch. A batch is stored before it is sent, so that a retry has
 * the same webhook-id. A failed batch is retried with exponential backoff and blocks later ones; after
 * SIEM_ATTEMPTS_MAX it becomes a dead letter and the next batch is sent. `node dist/replay.js` sends dead letters again:
 * before anything new, oldest first.
 */
export const deliverAudit: Job = {
  name: 'deliver-audit',
  queue: 'audit',
  everyMs: 1_000,
  description: 'Sealed audit events are posted to a SIEM in order, with retries, dead letters and replay.',
  async step(context) {
    const { SIEM_WEBHOOK_URL: url, SIEM_WEBHOOK_SECRET: secret } = context.config;
    if (!url || !secret) return NOTHING;
    const db = context.database.createQueryRunner();
    try {
      // One sender at a time keeps the order. A session lock, because a transaction left open while the receiver
      // responds would block sealing.
      const [lock]: { taken: boolean }[] = await db.query('SELECT pg_try_advisory_lock($1) AS taken', [
        ADVISORY_LOCKS.auditDelivery,
      ]);
      if (!lock?.taken) return NOTHING;
      try {
        return await sendNext(context, db, { url, secret });
      } finally {
        await db.query('SELECT pg_advisory_unlock($1)', [ADVISORY_LOCKS.auditDelivery]);
      }
    } finally {
      await db.release();
    }
  },
};

async function sendNext(
  context: JobContext,
  db: QueryRunner,
  target: { url: string; secret: string },
): Promise<StepReport> {
  const batch = await nextBatch(db);
  if (!batch) return NOTHING;
  const rows: AuditRow[] = await db.query(
    `SELECT ${EVENT_COLUMNS} FROM audit_links l JOIN audit_events e ON e.id = l.event_id AND e.at = l.event_at
     WHERE l.seq BETWEEN $1 AND $2 ORDER BY l.seq`,
    [batch.from_seq, batch.to_seq],
  );
  const outcome = await postWebhook(
    target,
    `audit_${batch.from_seq}_${batch.to_seq}`,
    { events: rows.map(toEvent) },
    context.signal,
  );
  const attempts = batch.attempts + 1;
  const state = outcome.ok ? 'sent' : attempts >= context.config.SIEM_ATTEMPTS_MAX ? 'dead' : 'due';
  await db.query(
    `UPDATE siem_batches SET state = $2, attempts = $3, last_error = $4,
       next_at = now() + least(interval '5 minutes', interval '1 second' * 2 ^ least($3 - 1, 9)) WHERE from_seq = $1`,
    [batch.from_seq, state, attempts, outcome.ok ? null : outcome.reason],
  );
  context.metrics.siemBatches.inc({ outcome: outcome.ok ? 'sent' : state });
  if (state === 'dead')
    context.logger.error(
      { fromSeq: batch.from_seq, toSeq: batch.to_seq, reason: outcome.ok ? '' : outcome.reason },
      'delivery of audit events failed: dead letter; send it again with `node dist/replay.js` when the receiver works',
    );
  return outcome.ok ? { done: rows.length, more: true } : NOTHING;
}

/** The oldest unsent batch, if it is due; without one, a new batch of what was sealed since. */
async function nextBatch(db: QueryRunner): Promise<Batch | undefined> {
  const [waiting]: (Batch & { now: boolean })[] = await db.query(
    `SELECT from_seq, to_seq, attempts, state, next_at <= now() AS now FROM siem_batches
     WHERE state = 'due' ORDER BY from_seq LIMIT 1`,
  );
  if (waiting) return waiting.now ? waiting : undefined;
  const [batch]: Batch[] = await db.query(
    `WITH sealed AS (
       SELECT seq FROM audit_links WHERE seq > coalesce((SELECT max(to_seq) FROM siem_batches), 0)
       ORDER BY seq LIMIT ${EVENTS_PER_BATCH}
     )
     INSERT INTO siem_batches (from_seq, to_seq) SELECT min(seq), max(seq) FROM sealed HAVING count(*) > 0
     RETURNING from_seq, to_seq, attempts, state`,
  );
  return batch;
}
