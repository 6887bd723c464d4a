import type { Effect, IssuedToken } from '@latchkey/contracts';
import { type Job, type JobContext, NOTHING } from '../job.js';

/** Requests to each gateway once the revocation has returned. */
const PROBES_PER_GATEWAY = 10;
/** If the canary is killed before it revokes, its token expires. */
const TOKEN_LIFETIME_SECONDS = 120;
const REVOKE_TIMEOUT_MS = 60_000;
const PROBE_TIMEOUT_MS = 5_000;

/**
 * Proves the guarantee on the running system, from outside: a token is issued, used at every gateway, revoked, and
 * presented again at every gateway once the revocation has returned `effective: true`. Anything accepted then is a
 * stale accept: it is counted, and logged as an error.
 */
export const canary: Job = {
  name: 'canary',
  queue: 'tokens',
  everyMs: 60_000,
  description: 'A token is issued, used, revoked and tried again at every gateway. Off without CANARY_TOKEN.',
  async step(context) {
    const { config, metrics, logger } = context;
    if (!config.CANARY_TOKEN) return NOTHING;
    const { id, secret } = await call<IssuedToken>(context, 'POST', '/v1/tokens', {
      name: 'canary',
      description: 'Issued and revoked by the canary to check that revocations take effect.',
      scopes: [],
      expiresInSeconds: TOKEN_LIFETIME_SECONDS,
    });
    const used = await Promise.all(config.CANARY_DOORS.map((url) => accepts(url, secret)));
    const startedMs = performance.now();
    const { effective } = await call<Effect>(context, 'POST', `/v1/tokens/${id}/revoke`, {
      reason: 'no_longer_needed',
    });
    const seconds = (performance.now() - startedMs) / 1_000;
    if (!effective) {
      metrics.canaryRuns.inc({ outcome: 'not_effective' });
      logger.warn({ tokenId: id, seconds }, "the canary's revocation was not confirmed in time");
      return { done: 1, more: false };
    }
    metrics.canarySeconds.observe(seconds);
    const stale = await Promise.all(config.CANARY_DOORS.map((url) => staleAccepts(url, secret)));
    for (const [index, count] of stale.entries()) {
      if (count === 0) continue;
      metrics.staleAccepts.inc(count);
      logger.error({ tokenId: id, gateway: config.CANARY_DOORS[index], count }, 'a gateway accepted a revoked token');
    }
    const proved = used.every(Boolean) && stale.every((count) => count === 0);
    metrics.canaryRuns.inc({ outcome: proved ? 'proved' : used.every(Boolean) ? 'stale' : 'door_away' });
    return { done: 1, more: false };
  },
};

async function staleAccepts(url: string, secret: string): Promise<number> {
  let accepted = 0;
  for (let i = 0; i < PROBES_PER_GATEWAY; i++) if (await accepts(url, secret)) accepted++;
  return accepted;
}

/** Whether the gateway accepts the token. An unreachable gateway does not. */
async function accepts(url: string, secret: string): Promise<boolean> {
  try {
    const response = await fetch(url, {
      headers: { authorization: `Bearer ${secret}` },
      redirect: 'manual',
      signal: AbortSignal.timeout(PROBE_TIMEOUT_MS),
    });
    await response.body?.cancel();
    return response.ok;
  } catch {
    return false; // unreachable: the run counts as `door_away`
  }
}

/** @throws Error with the status and the error code, never with what was sent */
async function call<T>({ config }: JobContext, method: string, target: string, body: unknown): Promise<T> {
  const response = await fetch(new URL(target, config.CANARY_API_URL), {
    method,
    headers: { authorization: `Bearer ${config.CANARY_TOKEN}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
    redirect: 'manual',
    signal: AbortSignal.timeout(REVOKE_TIMEOUT_MS),
  });
  const text = await response.text();
  if (response.ok) return JSON.parse(text) as T;
  const code = /"code":"([a-z_]+)"/.exec(text)?.[1] ?? 'no error code';
  throw new Error(
    `the canary's ${method} ${target} returned ${response.status} (${code}): CANARY_TOKEN needs tokens:write`,
  );
}
