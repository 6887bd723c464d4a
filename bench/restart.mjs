/**
 * PostgreSQL restarted while tokens are used (`RESTART_TOKENS`, 100,000 by default, all remembered at two
 * gateways), at half of what the gateways carry: what was refused, what requests felt, and how long until all was whole:
 * a token never seen before is accepted, and a revocation is effective.
 */
import { hash } from 'node:crypto';
import { Agent, get } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { ownServer, startCluster } from '@latchkey/testing';
import { mint } from '@latchkey/token-format';
import { issue } from './lib/cluster.mjs';
import { options } from './lib/options.mjs';
import { percentile, report } from './lib.mjs';

options('restart', 'PostgreSQL restarted at half load, with 100,000 tokens remembered (RESTART_TOKENS).', {});

const COUNT = Number(process.env.RESTART_TOKENS ?? 100_000);
const CALLERS = 16;
const CHUNK = 5_000;
const FULL_MS = 5_000;
const BEFORE_MS = 5_000;
const AFTER_MS = 15_000;

const server = await ownServer(async () => undefined);
const cluster = await startCluster({ gateways: 2, throughLink: false, database: server });
const agent = new Agent({ keepAlive: true, maxSockets: 256 });
try {
  const secrets = Array.from({ length: COUNT }, () => mint('pat'));
  for (let from = 0; from < COUNT; from += CHUNK) {
    const tokens = secrets.slice(from, from + CHUNK).map((secret, i) => ({
      name: `token ${from + i}`,
      start: secret.slice(0, 11),
      sha256: hash('sha256', secret),
    }));
    const { status } = await cluster.call('POST', '/v1/tokens/import', { tokens });
    if (status !== 201) throw new Error(`importing returned ${status}`);
  }
  await closed(2 * COUNT, (i) => use(cluster.gateways[i % 2]?.url, secrets[Math.floor(i / 2)], 200));

  let done = 0;
  const fullMs = performance.now();
  await closed(Number.POSITIVE_INFINITY, async (i) => {
    await use(cluster.gateways[i % 2]?.url, secrets[(i * 7919) % COUNT], 200);
    done++;
    return performance.now() - fullMs < FULL_MS;
  });
  const perSecond = done / ((performance.now() - fullMs) / 1_000) / 2;

  /** @type {{ atMs: number, tookMs: number, status: number }[]} */
  const asked = [];
  const startMs = performance.now();
  const load = (async () => {
    /** @type {Promise<void>[]} */
    const open = [];
    for (let i = 0; performance.now() - startMs < BEFORE_MS + AFTER_MS; i++) {
      const dueMs = (i * 1_000) / perSecond;
      const early = dueMs - (performance.now() - startMs);
      if (early > 1) await sleep(early);
      const sentMs = performance.now();
      const ask = present(cluster.gateways[i % 2]?.url, secrets[(i * 7919) % COUNT]).then((status) => {
        asked.push({ atMs: sentMs - startMs, tookMs: performance.now() - sentMs, status });
      });
      open.push(ask);
    }
    await Promise.all(open);
  })();
  const fresh = await Promise.all(Array.from({ length: 2 }, (_, i) => issue(cluster, `fresh ${i}`)));
  await sleep(BEFORE_MS - (performance.now() - startMs));
  const stoppedMs = performance.now() - startMs;
  await server.stop();
  await server.start();
  const startedMs = performance.now() - startMs;
  const [unseen, ended] = fresh;
  while ((await present(cluster.gateways[0]?.url, unseen?.secret)) !== 200) await sleep(20);
  const acceptedMs = performance.now() - startMs;
  for (;;) {
    const { status, body } = await cluster.call('POST', `/v1/tokens/${ended?.id}/revoke`, {});
    if (status === 200 && /** @type {any} */ (body).effective) break;
    await sleep(20);
  }
  const wholeMs = performance.now() - startMs;
  await load;

  const took = (/** @type {(atMs: number) => boolean} */ when) =>
    asked.filter(({ atMs }) => when(atMs)).map(({ tookMs }) => tookMs);
  const refused = asked.filter(({ status }) => status !== 200);
  report('tokens remembered at each gateway', COUNT);
  report('requests a second, half of what both carry', perSecond);
  report(`refused, of ${asked.length}`, refused.length, 0);
  report(
    'p99 before',
    percentile(
      took((at) => at < stoppedMs),
      0.99,
    ),
    undefined,
    ' ms',
  );
  report(
    'p99 from the stop until all was whole',
    percentile(
      took((at) => at >= stoppedMs && at < wholeMs),
      0.99,
    ),
    undefined,
    ' ms',
  );
  report(
    'p99 afterwards',
    percentile(
      took((at) => at >= wholeMs),
      0.99,
    ),
    undefined,
    ' ms',
  );
  report('PostgreSQL was unavailable for', (startedMs - stoppedMs) / 1_000, undefined, ' s');
  report('after that, until a token never seen was accepted', (acceptedMs - startedMs) / 1_000, undefined, ' s');
  report('after that, until a revocation was effective', (wholeMs - startedMs) / 1_000, undefined, ' s');
  const kinds = new Map();
  for (const { status } of refused) kinds.set(status, (kinds.get(status) ?? 0) + 1);
  if (refused.length > 0)
    console.log(`  refused with ${[...kinds].map(([status, n]) => `${status}: ${n}`).join(', ')}`);
} finally {
  agent.destroy();
  await cluster.close();
  await server.close();
}

/** @param {string | undefined} url @param {string | undefined} secret @returns {Promise<number>} the status; 0: no response */
function present(url, secret) {
  return new Promise((resolve) => {
    const headers = { authorization: `Bearer ${secret}` };
    get(new URL(cluster.guardedPath, url), { agent, headers }, (response) => {
      response.resume().once('end', () => resolve(response.statusCode ?? 0));
    }).once('error', () => resolve(0));
  });
}

/** @param {string | undefined} url @param {string | undefined} secret @param {number} expected */
async function use(url, secret, expected) {
  const status = await present(url, secret);
  if (status !== expected) throw new Error(`a gateway returned ${status}, not ${expected}`);
}

/** Callers that each wait for their response. @param {number} count @param {(i: number) => Promise<unknown>} work false: enough */
async function closed(count, work) {
  let next = 0;
  await Promise.all(
    Array.from({ length: CALLERS }, async () => {
      while (next < count) if ((await work(next++)) === false) break;
    }),
  );
}
