/**
 * Revoke until effective everywhere, with four gateways that all have the token in memory: one token-service, four
 * gateways, PostgreSQL and Redis as processes of their own, 50 revocations a second offered. Beside it the same for a
 * change of the name, which writes no invalidation: the peer.
 */
import { Agent } from 'node:http';
import { startCluster } from '@latchkey/testing';
import { atRate, issue, many, plainCalls } from './lib/cluster.mjs';
import { options } from './lib/options.mjs';
import { percentile, report } from './lib.mjs';

options('revocation', 'Revoke until effective at four gateways.', {});

const GATEWAYS = 4;
const PER_SECOND = 50;
const SECONDS = 10;
const WARM_UP = 200;

const agent = new Agent({ keepAlive: true });
const cluster = await startCluster({ gateways: GATEWAYS, throughLink: false });
try {
  const call = plainCalls(cluster, agent);
  const count = PER_SECOND * SECONDS + WARM_UP;
  const tokens = await many(count, (i) => issue(cluster, `bench ${i}`));
  await many(count, async (i) => {
    for (const { url } of cluster.gateways) await use(url, tokens[i]?.secret, 200);
  });
  const rename = (/** @type {number} */ i) => call('PATCH', `/v1/tokens/${tokens[i]?.id}`, { name: `new ${i}` });
  const revoke = async (/** @type {number} */ i) => {
    const response = await call('POST', `/v1/tokens/${tokens[i]?.id}/revoke`, {});
    const { effective, receipt } = /** @type {any} */ (response.body);
    if (!effective || receipt.verifiers.length !== GATEWAYS) throw new Error(JSON.stringify(response.body));
    for (const { by } of receipt.verifiers) confirmedBy.set(by, (confirmedBy.get(by) ?? 0) + 1);
    return response;
  };
  const confirmedBy = new Map();
  for (let i = 0; i < WARM_UP; i++) await rename(i);
  for (let i = 0; i < WARM_UP; i++) await revoke(i);
  const measured = Array.from({ length: count - WARM_UP }, (_, n) => WARM_UP + n);
  const offered = (/** @type {(i: number) => Promise<{ status: number, body: unknown }>} */ work) =>
    atRate(PER_SECOND, measured, async (i) => {
      const { status, body } = await work(i);
      if (status !== 200) throw new Error(`returned ${status} ${JSON.stringify(body)}`);
    });
  const renames = await offered(rename);
  const revocations = await offered(revoke);
  for (let i = WARM_UP; i < count; i += 25)
    for (const { url } of cluster.gateways) await use(url, tokens[i]?.secret, 401);

  report('PATCH of the name, p50', percentile(renames, 0.5), undefined, ' ms');
  report('PATCH of the name, p99', percentile(renames, 0.99), undefined, ' ms');
  report('revoke to effective at four gateways, p50', percentile(revocations, 0.5), 5, ' ms');
  report('revoke to effective at four gateways, p99', percentile(revocations, 0.99), 20, ' ms');
  report('ratio of the medians', percentile(revocations, 0.5) / percentile(renames, 0.5), 2.5, '×');
  console.log(`  confirmed by ${[...confirmedBy].map(([by, n]) => `${by}: ${n}`).join(', ')}`);
} finally {
  await cluster.close();
  agent.destroy();
}

async function use(
  /** @type {string} */ url,
  /** @type {string | undefined} */ secret,
  /** @type {number} */ expected,
) {
  const response = await fetch(new URL(cluster.guardedPath, url), { headers: { authorization: `Bearer ${secret}` } });
  await response.text();
  if (response.status !== expected) throw new Error(`a gateway returned ${response.status}, not ${expected}`);
}
