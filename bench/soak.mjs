/**
 * A gateway under half of what it can do, for an hour, with token-service, jobs, PostgreSQL and Redis beside it: a token
 * issued, used, revoked and refused every second, connections that come and go. Its memory and descriptors must not grow,
 * nor what a request costs.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { startCluster } from '@latchkey/testing';
import { issue, many } from './lib/cluster.mjs';
import { fixedRate, requestOf } from './lib/generators.mjs';
import { options } from './lib/options.mjs';
import { processorSecondsOf, processors } from './lib/processes.mjs';
import { summary } from './lib/statistics.mjs';
import { percentile, report } from './lib.mjs';

const given = options('soak', 'Memory, descriptors and processor time of a gateway under half load, for long.', {
  minutes: [60, 'how long'],
  connections: [32, 'that stay open'],
  rate: [0, 'requests a second; 0: half of what this machine answers now'],
});
const SLICE_S = 10;
const FULL_S = 5;
/** Until compiled code and caches stand. */
const WARM_UP_SHARE = 0.2;
const TOKENS = 200;
const GROWTH_MAX = 0.1;
/** Descriptors are whole connections; those of callers who come and go are there or not. */
const DESCRIPTORS_MAX = 8;

const on = processors();
const cluster = await startCluster({ gateways: 1, throughLink: false, jobs: true });
/** @type {(() => unknown)[]} */
const closing = [() => cluster.close()];
try {
  const gateway = /** @type {import('@latchkey/testing').Member} */ (cluster.gateways[0]);
  const { pid } = gateway.process;
  const port = Number(new URL(gateway.url).port);
  const tokens = await many(TOKENS, (i) => issue(cluster, `soak ${i}`));
  const headersOf = (/** @type {{ secret: string }} */ { secret }) => ({
    Host: 'soak',
    Authorization: `Bearer ${secret}`,
  });
  const target = (/** @type {{ secret: string }} */ token) => ({
    port,
    path: cluster.guardedPath,
    headers: headersOf(token),
  });
  const generator = await fixedRate(on.rest);
  closing.push(() => generator.stop());
  const first = /** @type {{ id: string, secret: string }} */ (tokens[0]);
  const rate = given.rate || Math.floor((await fullRate()) / 2);
  console.error(`  ${given.minutes} min at ${rate} requests/s`);

  /** By the generator's own closed loop. */
  async function fullRate() {
    const job = { port, request: requestOf(target(first)), connections: given.connections, ms: FULL_S * 1_000 };
    const { count, ms, errors } = await generator.ask(job);
    if (errors > 0) throw new Error(`${errors} of ${count} responses were not 200`);
    return (count * 1_000) / ms;
  }

  let [revoked, accepted, failed, isOver] = [0, 0, 0, false];
  /** @type {number[]} */
  const revocationMs = [];
  /** Over a connection of its own. @param {{ secret: string }} token @returns {Promise<number>} */
  const statusOf = (token) =>
    new Promise((resolve, reject) => {
      const sent = request(new URL(cluster.guardedPath, gateway.url), { agent: false, headers: headersOf(token) });
      sent.on('response', (response) => response.resume().on('end', () => resolve(response.statusCode ?? 0)));
      sent.on('error', reject).end();
    });
  const revoking = (async () => {
    while (!isOver) {
      await sleep(1_000);
      try {
        const token = await issue(cluster, 'revoked soon');
        if ((await statusOf(token)) !== 200) throw new Error('a new token is refused');
        const sentMs = performance.now();
        const { body } = await cluster.call('POST', `/v1/tokens/${token.id}/revoke`, {});
        if (!(/** @type {any} */ (body).effective)) throw new Error('a revocation is not effective');
        revocationMs.push(performance.now() - sentMs);
        if ((await statusOf(token)) !== 401) accepted++;
        revoked++;
      } catch (error) {
        failed++;
        console.error(`  ${/** @type {Error} */ (error).message}`);
      }
    }
  })();

  const requests = tokens.map((token) => requestOf(target(token)));
  /** @type {{ minutes: number, rss: number, descriptors: number, microseconds: number, p99: number }[]} */
  const samples = [];
  const beganMs = performance.now();
  const minutesNow = () => (performance.now() - beganMs) / 60_000;
  let [sent, errors] = [0, 0];
  while (minutesNow() < given.minutes) {
    const before = processorSecondsOf(pid);
    const result = await generator.ask({
      port,
      request: requests,
      connections: given.connections,
      ms: SLICE_S * 1_000,
      rate,
    });
    sent += result.count;
    errors += result.errors;
    const microseconds = ((processorSecondsOf(pid) - before) * 1e6) / result.count;
    const sample = { minutes: minutesNow(), rss: residentMb(pid), descriptors: descriptorsOf(pid), microseconds };
    samples.push({ ...sample, p99: result.p99 });
    if (samples.length % 30 === 0) console.error(`  ${describe(/** @type {any} */ (samples.at(-1)))}`);
  }
  isOver = true;
  await revoking;

  const steady = samples.slice(Math.floor(samples.length * WARM_UP_SHARE));
  const third = Math.max(1, Math.floor(steady.length / 3));
  const [early, late] = [steady.slice(0, third), steady.slice(-third)];
  const growth = (/** @type {'rss' | 'microseconds'} */ what) => median(late, what) / median(early, what) - 1;
  for (const [name, list] of /** @type {const} */ ([
    ['early', early],
    ['late', late],
  ]))
    console.log(
      `  ${name}: ${median(list, 'rss').toFixed(0)} MB resident, ${median(list, 'descriptors')} descriptors, ${median(list, 'microseconds').toFixed(1)} µs a request, p99 ${median(list, 'p99').toFixed(2)} ms`,
    );
  report('requests', sent);
  report('responses that were not 200', errors, 0);
  report('tokens revoked', revoked);
  report('accepted after their revocation', accepted, 0);
  report('revocations that failed', failed, 0);
  report('revoke to effective, p50', percentile(revocationMs, 0.5), undefined, ' ms');
  report('revoke to effective, p99', percentile(revocationMs, 0.99), undefined, ' ms');
  report('memory grown', growth('rss') * 100, GROWTH_MAX * 100, ' %');
  report('descriptors grown', median(late, 'descriptors') - median(early, 'descriptors'), DESCRIPTORS_MAX);
  report('processor time a request grown', growth('microseconds') * 100, GROWTH_MAX * 100, ' %');
} finally {
  for (const close of closing.reverse()) await close();
}

/**
 * @param {readonly { rss: number, descriptors: number, microseconds: number, p99: number }[]} list
 * @param {'rss' | 'descriptors' | 'microseconds' | 'p99'} what
 */
function median(list, what) {
  return summary(list.map((sample) => sample[what])).median;
}

/** @param {{ minutes: number, rss: number, descriptors: number, microseconds: number, p99: number }} sample */
function describe({ minutes, rss, descriptors, microseconds, p99 }) {
  return `after ${minutes.toFixed(0)} min: ${rss.toFixed(0)} MB, ${descriptors} descriptors, ${microseconds.toFixed(1)} µs a request, p99 ${p99.toFixed(2)} ms`;
}

/** With its child processes. @param {number} pid @returns {number[]} */
function family(pid) {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
  return [pid, ...children.flatMap(family)];
}

/** @param {number} pid */
function residentMb(pid) {
  const kilobytes = (/** @type {number} */ one) =>
    Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${one}/status`, 'utf8'))?.[1] ?? 0);
  return family(pid).reduce((sum, one) => sum + kilobytes(one), 0) / 1_024;
}

/** @param {number} pid */
function descriptorsOf(pid) {
  return family(pid).reduce((sum, one) => sum + readdirSync(`/proc/${one}/fd`).length, 0);
}
