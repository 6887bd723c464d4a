/**
 * `npm run faults`: three gateways and two token-services as processes, with PostgreSQL and Redis; tokens are presented
 * at every gateway in hot loops while some are revoked and something goes wrong. Each history is judged; the table tells
 * what was asked and what it cost. `npm run faults -- redis` runs the scenarios whose name holds the word.
 */
import { Agent } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { startCluster } from '@latchkey/testing';
import { judge, judgeTheJudge } from './history.mjs';
import { Observer, present } from './observer.mjs';
import { scenarios } from './scenarios.mjs';

const LEASE_MS = 3_000;
const VICTIMS = 8;
const SURVIVORS = 4;

judgeTheJudge();
const words = process.argv.slice(2);
const chosen = scenarios.filter(({ name }) => words.length === 0 || words.some((word) => name.includes(word)));
const cluster = await startCluster({ tokenServices: 2, gateways: 3, leaseMs: LEASE_MS });
let broken = 0;
try {
  for (const scenario of chosen) {
    if (scenario.needs) console.log(`${scenario.name}\n  not run: this machine lacks ${scenario.needs}`);
    else broken += await trial(scenario);
  }
} finally {
  await cluster.close();
}
console.log(broken ? `\n${broken} checks broke the guarantee` : '\nno check broke the guarantee');
process.exitCode = broken ? 1 : 0;

/** @param {import('./scenarios.mjs').Scenario} scenario @returns how many checks broke the guarantee */
async function trial({ name, inject, prepare }) {
  const restore = await prepare?.(cluster);
  const tokens = await Promise.all(Array.from({ length: VICTIMS + SURVIVORS }, (_, i) => issue(`${name} ${i}`)));
  const victims = tokens.slice(0, VICTIMS);
  const survivors = tokens.slice(VICTIMS);
  await whole(tokens);
  const observer = new Observer(cluster, tokens);
  await sleep(300);
  const heal = await inject(cluster);
  const revocations = await Promise.all(
    victims.map(async ({ id }, i) => {
      await sleep(i * 150);
      return revoke(id, i);
    }),
  );
  await sleep(500);
  const healedMs = performance.now();
  await heal();
  await whole(survivors);
  const wholeMs = performance.now() - healedMs;
  await sleep(1_000);
  await observer.stop();
  await restore?.();
  const { checks } = observer;
  const { stale, wronged } = judge(checks, revocations);
  const count = (/** @type {string} */ verdict) => checks.filter((check) => check.verdict === verdict).length;
  const tookMs = revocations.map(({ startMs, endMs }) => endMs - startMs).sort((a, b) => a - b);
  console.log(name);
  console.log(
    `  ${checks.length} checks: ${count('accepted')} accepted, ${count('denied')} denied, ${count('unavailable')} unavailable (503), ${count('unreachable')} without an answer`,
  );
  console.log(`  stale accepts ${stale.length}, good tokens denied ${wronged.length}`);
  console.log(
    `  revocations took ${Math.round(tookMs[Math.floor(tookMs.length / 2)] ?? 0)} ms (median), ${Math.round(tookMs.at(-1) ?? 0)} ms at most; whole again after ${Math.round(wholeMs)} ms`,
  );
  console.log(
    `  confirmed by ${['ack', 'cursor', 'released', 'lease'].map((by) => `${by} ${revocations.flatMap((r) => r.by).filter((b) => b === by).length}`).join(', ')}`,
  );
  for (const check of [...stale, ...wronged].slice(0, 5)) console.log('  ', JSON.stringify(check));
  return stale.length + wronged.length;
}

async function issue(/** @type {string} */ name) {
  const { status, body } = await cluster.call('POST', '/v1/tokens', { name: name.slice(0, 90) });
  if (status !== 201) throw new Error(`issuing answered ${status}`);
  return /** @type {{ id: string, secret: string }} */ (body);
}

/** Asks until it is effective, at one token-service after the other. */
async function revoke(/** @type {string} */ id, /** @type {number} */ turn) {
  const startMs = performance.now();
  for (let attempt = turn; ; attempt++) {
    const service = cluster.tokenServices[attempt % cluster.tokenServices.length];
    try {
      const options = { ...(service && { at: service }), timeoutMs: 15_000 };
      const { status, body } = await cluster.call('POST', `/v1/tokens/${id}/revoke`, {}, options);
      const { effective, receipt } = /** @type {Partial<import('@latchkey/contracts').Effect>} */ (body);
      const by = receipt?.verifiers.map((verifier) => verifier.by) ?? [];
      if (status === 200 && effective) return { token: id, startMs, endMs: performance.now(), by };
    } catch (error) {
      if (!(error instanceof Error)) throw error; // refused, reset, timed out: the next one is asked
    }
    if (performance.now() - startMs > 120_000) throw new Error('a revocation did not become effective in two minutes');
    await sleep(100);
  }
}

/** Waits until every gateway accepts every token. */
async function whole(/** @type {readonly { secret: string }[]} */ tokens) {
  const agent = new Agent({ keepAlive: true });
  const untilMs = performance.now() + 60_000;
  for (const { name, url, process } of cluster.gateways) {
    for (const { secret } of tokens) {
      for (;;) {
        const status = await present(`${url}${cluster.guardedPath}`, secret, agent);
        if (status === 200) break;
        if (performance.now() > untilMs) {
          const said = process.logs().slice(-2_000);
          throw new Error(`${name} answers ${status ?? 'nothing'} to a good token a minute after the fault:\n${said}`);
        }
        await sleep(50);
      }
    }
  }
  agent.destroy();
}
