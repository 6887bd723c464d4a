/**
 * What a check through a gateway costs while an attacker who can write to Redis floods the channel of invalidations with
 * messages that name the true key, beside the same checks undisturbed: in turns, one after the other.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { Agent, get } from 'node:http';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { REDIS } from '@latchkey/contracts';
import { startCluster } from '@latchkey/testing';
import { Redis } from 'ioredis';
import { atRate, issue } from './lib/cluster.mjs';
import { options } from './lib/options.mjs';
import { summary } from './lib/statistics.mjs';
import { percentile, report } from './lib.mjs';

if (isMainThread) await measure();
else await flood(workerData);

async function measure() {
  const {
    'per-second': perSecond,
    forged,
    turns,
    seconds,
  } = options('forged', 'Checks while forged invalidations flood Redis, beside the same checks undisturbed.', {
    'per-second': [200, 'checks a second'],
    forged: [20_000, 'forged messages a second'],
    turns: [5, 'how often each is measured'],
    seconds: [5, 'how long each turn takes'],
  });
  const cluster = await startCluster({ gateways: 1, throughLink: false });
  const agent = new Agent({ keepAlive: true });
  try {
    const { secret } = await issue(cluster, 'checked');
    const key = await keyOf(cluster);
    const url = new URL(cluster.guardedPath, cluster.gateways[0]?.url);
    const checks = () => atRate(perSecond, new Array(perSecond * seconds).fill(url), () => checked(url, secret, agent));
    const whileFlooded = async () => {
      const worker = new Worker(new URL(import.meta.url), {
        workerData: { url: cluster.redis.url, perSecond: forged, key },
      });
      await once(worker, 'message');
      const p99 = percentile(await checks(), 0.99);
      worker.postMessage('enough');
      const [perTurn] = await once(worker, 'message');
      return { p99, sent: perTurn };
    };
    // Both once before it counts, for what is compiled only then.
    await checks();
    await whileFlooded();
    /** @type {number[]} */
    const idle = [];
    /** @type {number[]} */
    const flooded = [];
    let sent = 0;
    for (let turn = 0; turn < turns; turn++) {
      idle.push(percentile(await checks(), 0.99));
      const turned = await whileFlooded();
      flooded.push(turned.p99);
      sent += turned.sent / turns;
    }
    const [quiet, loud] = [summary(idle), summary(flooded)];
    report('forged messages a second that Redis took', sent);
    report(
      `check p99 undisturbed (${quiet.low.toFixed(1)} to ${quiet.high?.toFixed(1)})`,
      quiet.median,
      undefined,
      ' ms',
    );
    report(`check p99 meanwhile (${loud.low.toFixed(1)} to ${loud.high?.toFixed(1)})`, loud.median, undefined, ' ms');
    report('ratio of the medians', loud.median / quiet.median, 2, '×');
  } finally {
    agent.destroy();
    await cluster.close();
  }
}

/** The id of the key that signs invalidations, as any listener on Redis sees it. @param {import('@latchkey/testing').Cluster} cluster @returns {Promise<string>} */
async function keyOf(cluster) {
  const listener = new Redis(cluster.redis.url);
  await listener.subscribe(REDIS.invalidations);
  const message = once(listener, 'message');
  const { id } = await issue(cluster, 'revoked');
  await cluster.call('POST', `/v1/tokens/${id}/revoke`, {});
  const [, text] = await message;
  listener.disconnect();
  return JSON.parse(text).key;
}

/** Publishes until it is stopped, and reports how many a second. @param {{ url: string, perSecond: number, key: string }} what */
async function flood({ url, perSecond, key }) {
  const redis = new Redis(url);
  let running = true;
  parentPort?.once('message', () => {
    running = false;
  });
  const texts = Array.from({ length: 64 }, () =>
    JSON.stringify({
      log: randomUUID(),
      invalidations: [{ id: randomUUID(), kind: 'everything', subject: '', cut: true, xid: '1' }],
      key,
      signature: randomBytes(64).toString('base64url'),
    }),
  );
  const startMs = performance.now();
  let sent = 0;
  parentPort?.postMessage('begun');
  while (running) {
    const due = Math.floor(((performance.now() - startMs) * perSecond) / 1_000) - sent;
    const batch = redis.pipeline();
    for (let i = 0; i < Math.min(due, 1_000); i++) batch.publish(REDIS.invalidations, texts[(sent + i) % 64] ?? '');
    sent += batch.length;
    await batch.exec();
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  parentPort?.postMessage((sent * 1_000) / (performance.now() - startMs));
  redis.disconnect();
}

/** @param {URL} url @param {string} secret @param {Agent} agent @returns {Promise<void>} */
function checked(url, secret, agent) {
  return new Promise((resolve, reject) => {
    get(url, { agent, headers: { authorization: `Bearer ${secret}` } }, (response) => {
      response.resume().once('end', () => {
        if (response.statusCode === 200) resolve();
        else reject(new Error(`a check returned ${response.statusCode}`));
      });
    }).once('error', reject);
  });
}
