import { createHmac } from 'node:crypto';

/** Longest that a receiver may take to answer. */
export const WEBHOOK_TIMEOUT_MS = 10_000;

/** How a receiver took a message. `gone`: it asks not to be called again (410). */
export type WebhookOutcome = { ok: true } | { ok: false; gone: boolean; reason: string };

/**
 * The signature of a message by Standard Webhooks 1.0.0: HMAC-SHA-256 over `id.timestamp.body` under the bytes that the
 * secret (`whsec_<base64>`) stands for.
 */
export function webhookSignature(secret: string, id: string, timestampSeconds: number, body: string): string {
  const key = Buffer.from(secret.replace(/^whsec_/, ''), 'base64');
  return `v1,${createHmac('sha256', key).update(`${id}.${timestampSeconds}.${body}`).digest('base64')}`;
}

/**
 * Posts a message, signed. The `id` is the same each time that a message is sent again, so that a receiver can tell a
 * repetition. Redirects are not followed. Never throws: what went wrong is the outcome.
 */
export async function postWebhook(
  target: { url: string; secret: string },
  id: string,
  payload: unknown,
  signal: AbortSignal,
): Promise<WebhookOutcome> {
  const body = JSON.stringify(payload);
  const timestamp = Math.floor(Date.now() / 1000);
  try {
    const answer = await fetch(target.url, {
      method: 'POST',
      redirect: 'manual',
      signal: AbortSignal.any([signal, AbortSignal.timeout(WEBHOOK_TIMEOUT_MS)]),
      headers: {
        'content-type': 'application/json',
        'user-agent': 'latchkey',
        'webhook-id': id,
        'webhook-timestamp': String(timestamp),
        'webhook-signature': webhookSignature(target.secret, id, timestamp, body),
      },
      body,
    });
    await answer.body?.cancel();
    if (answer.ok) return { ok: true };
    return { ok: false, gone: answer.status === 410, reason: `the receiver answered ${answer.status}` };
  } catch (error) {
    const cause = (error as { cause?: { code?: string } }).cause?.code ?? (error as Error).name;
    return { ok: false, gone: false, reason: `the receiver could not be reached (${cause})` };
  }
}
