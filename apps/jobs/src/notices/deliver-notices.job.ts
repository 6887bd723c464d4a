import type { Job, JobContext } from '../job.js';
import { postWebhook, type WebhookOutcome } from '../webhooks/index.js';
import { sendMail } from './mail.js';
import { type NoticeInput, noticeEmailOf, webhookPayload } from './notice-email.js';
import type { Channel } from './notices.service.js';

/** Sent concurrently: one slow receiver delays few others. */
const ROWS = 5;
/** Longer than a step can take: what a dead worker had taken is due again after this. */
const LEASE = '2 minutes';
/** Attempts before a delivery is dead: with the backoff below, about two days. */
export const ATTEMPTS_MAX = 16;

interface Delivery extends NoticeInput {
  deliveryId: string;
  channel: Channel;
  attempts: number;
}

/**
 * Takes due deliveries by postponing when they are due next, sends them, and stores the outcome. If it is killed between
 * sending and storing, they are sent once more, with the same Message-ID or webhook-id.
 */
export const deliverNotices: Job = {
  name: 'deliver-notices',
  queue: 'notices',
  everyMs: 1_000,
  parallel: 2,
  description: 'Notices are sent by email and webhook, with retries and exponential backoff.',
  async step(context) {
    const taken = await take(context);
    await Promise.all(taken.map((delivery) => deliver(context, delivery)));
    return { done: taken.length, more: taken.length === ROWS };
  },
};

/** Backoff: half a minute after the first failure, doubling, at most six hours. */
async function deliver(context: JobContext, delivery: Delivery): Promise<void> {
  const outcome = await send(context, delivery);
  const state = outcome.ok ? 'sent' : outcome.gone || delivery.attempts >= ATTEMPTS_MAX ? 'dead' : 'due';
  await context.database.query(
    `UPDATE notice_deliveries SET state = $2, last_error = $3, sent_at = CASE WHEN $2 = 'sent' THEN now() END,
       next_at = now() + least(interval '6 hours', interval '30 seconds' * 2 ^ least(attempts - 1, 12)) WHERE id = $1`,
    [delivery.deliveryId, state, outcome.ok ? null : outcome.reason.slice(0, 500)],
  );
  context.metrics.notices.inc({ channel: delivery.channel, outcome: outcome.ok ? 'sent' : state });
}

async function take({ database }: JobContext): Promise<Delivery[]> {
  const rows: Record<string, unknown>[] = await database.query(
    `WITH due AS (
       SELECT id FROM notice_deliveries WHERE state = 'due' AND next_at <= now()
       ORDER BY next_at LIMIT ${ROWS} FOR UPDATE SKIP LOCKED
     ), taken AS (
       UPDATE notice_deliveries d SET attempts = d.attempts + 1, next_at = now() + interval '${LEASE}'
       FROM due WHERE d.id = due.id RETURNING d.*
     )
     SELECT d.id AS "deliveryId", d.channel, d.attempts, n.id, n.kind, n.at, n.details,
       jsonb_build_object('id', t.id, 'name', t.name, 'start', t.start, 'kind', t.kind, 'project', p.name) AS token,
       jsonb_build_object('id', u.id, 'name', u.name, 'email', u.email) AS person
     FROM taken d JOIN notices n ON n.id = d.notice_id JOIN tokens t ON t.id = n.token_id
     JOIN users u ON u.id = d.user_id LEFT JOIN projects p ON p.id = t.project_id
     ORDER BY n.at`,
  );
  return rows as unknown as Delivery[];
}

async function send(context: JobContext, delivery: Delivery): Promise<WebhookOutcome> {
  const { config, signal } = context;
  if (delivery.channel === 'email')
    return sendMail(config, delivery.deliveryId, delivery.person, noticeEmailOf(delivery, config.PUBLIC_URL));
  const { NOTICE_WEBHOOK_URL: url, NOTICE_WEBHOOK_SECRET: secret } = config;
  if (!url || !secret) return { ok: false, gone: false, reason: 'NOTICE_WEBHOOK_URL is not set' };
  return postWebhook({ url, secret }, delivery.deliveryId, webhookPayload(delivery), signal);
}
