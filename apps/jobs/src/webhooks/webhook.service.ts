import { createHmac } from 'node:crypto';

/** Timeout for the receiver's response. */
export const WEBHOOK_TIMEOUT_MS = 10_000;

/** The result of a webhook. `gone`: the receiver wants no further ones (410). */
export type WebhookOutcome = { ok: true } | { ok: false; gone: boolean; reason: string };

/**
 * The signature of a message by Standard Webhooks 1.0.0: HMAC-SHA-256 over `id.timestamp.body` under the decoded
 * secret (`whsec_<base64>`).
 */
export function webhookSignature(secret: string, id: string, timestampSeconds: number, body: string): string {
  const key = Buffer.from(secret.replace(/^whsec_/, ''), 'base64');
  return `v1,${createHmac('sha256', key).update(`${id}.${timestampSeconds}.${body}`).digest('base64')}`;
}

/**
 * Posts a signed message. A retry has the same `id`, so that receivers can detect repetitions. Redirects are not
 * followed. Never throws: failures are outcomes.
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
    const response = await fetch(target.url, {
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
    await response.body?.cancel();
    if (response.ok) return { ok: true };
    return { ok: false, gone: response.status === 410, reason: `the receiver returned ${response.status}` };
  } catch (error) {
    const cause = (error as { cause?: { code?: string } }).cause?.code ?? (error as Error).name;
    return { ok: false, gone: false, reason: `the receiver could not be reached (${cause})` };
  }
}
