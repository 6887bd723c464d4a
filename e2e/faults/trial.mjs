import { setTimeout as sleep } from 'node:timers/promises';
import { evaluate } from './history.mjs';
import { Caller, Observer } from './observer.mjs';

/**
 * @typedef {import('@latchkey/testing').Cluster} Cluster
 * @typedef {import('@latchkey/testing').Member} Member
 *
 * @typedef {object} Place where a scenario happens
 * @property {Cluster} cluster
 * @property {import('@latchkey/testing').OwnServer} [server] its PostgreSQL, where it has one of its own
 * @property {import('@latchkey/testing').StandBy} [standBy] for which every commit there waits
 *
 * @typedef {Place & { close(): Promise<void> }} OwnPlace
 *
 * @typedef {object} Scenario
 * @property {string} name
 * @property {string} [needs] what this machine lacks for it, when it does
 * @property {() => Promise<OwnPlace>} [open] a place of its own; default: the cluster that all share
 * @property {number} [firstAsked] index of the token-service at which each revocation is asked for first; default: in turn
 * @property {(place: Place) => Promise<() => Promise<void>>} [prepare] before any token is made; what it returns brings
 * the world in order again
 * @property {(place: Place, revokeOne: () => Promise<void>) => Promise<void>} [issued] when the tokens are there and
 * not presented yet; `revokeOne` revokes one of them, which is evaluated like the others
 * @property {(place: Place) => Promise<() => Promise<void>>} inject brings the fault about, while tokens are in use and
 * before the others are revoked; what it returns ends the fault
 * @property {(place: Place, revocations: readonly Revoked[]) => Promise<string[]> | string[]} [promises] what else is
 * promised and does not hold
 *
 * @typedef {import('./history.mjs').Revocation & { at: string, confirmed: { name: string, by: string }[], refused: number }} Revoked
 * a revocation with the token-service that returned `effective`, who confirmed it how, and how often it returned
 * otherwise before
 *
 * @typedef {object} Outcome
 * @property {string} name
 * @property {number} checks
 * @property {Record<import('./history.mjs').Check['verdict'], number>} verdicts
 * @property {number} stale
 * @property {number} wronged
 * @property {string[]} broken other promises that do not hold
 * @property {object[]} examples
 * @property {number} revocations
 * @property {number} medianMs
 * @property {number} maxMs
 * @property {Record<string, number>} by
 * @property {number} refused responses to revocations that were not effective: 503, 202, or none
 * @property {number} wholeMs
 */

const VICTIMS = 8;
const SURVIVORS = 4;
const REVOKED_EVERY_MS = 150;
const REVOCATION_TIMEOUT_MS = 15_000;
/** Checks go on for so long when all is in order again. */
const AFTERWARDS_MS = 1_000;

/** @param {Scenario} scenario @param {Place} place @returns {Promise<Outcome>} */
export async function trial(scenario, place) {
  const { name, prepare, issued, inject, promises, firstAsked } = scenario;
  const { cluster } = place;
  const restore = await prepare?.(place);
  const tokens = await Promise.all(
    Array.from({ length: VICTIMS + SURVIVORS }, (_, i) => issue(cluster, `${name} ${i}`)),
  );
  const victims = tokens.slice(0, VICTIMS);
  const survivors = tokens.slice(VICTIMS);
  await whole(cluster, tokens);
  /** @type {Revoked[]} */
  const revocations = [];
  await issued?.(place, async () => {
    const victim = victims.shift();
    if (victim) revocations.push(await revoke(cluster, victim.id, 0));
  });
  await whole(cluster, [...victims, ...survivors]);

  const observer = new Observer(cluster, tokens);
  let wholeMs = 0;
  try {
    await sleep(300);
    const heal = await inject(place);
    const revoked = await Promise.all(
      victims.map(async ({ id }, i) => {
        await sleep(i * REVOKED_EVERY_MS);
        return revoke(cluster, id, firstAsked ?? i);
      }),
    );
    revocations.push(...revoked);
    await sleep(500);
    const healedMs = performance.now();
    await heal();
    await whole(cluster, survivors);
    wholeMs = performance.now() - healedMs;
    await sleep(AFTERWARDS_MS);
  } finally {
    await observer.stop();
  }
  const broken = (await promises?.(place, revocations)) ?? [];
  await restore?.();
  return outcome(name, observer.checks, revocations, wholeMs, broken);
}

/** @param {string} name @param {import('./history.mjs').Check[]} checks @param {Revoked[]} revocations @param {number} wholeMs @param {string[]} broken @returns {Outcome} */
function outcome(name, checks, revocations, wholeMs, broken) {
  const { stale, wronged } = evaluate(checks, revocations);
  const verdicts = { accepted: 0, denied: 0, unavailable: 0, unreachable: 0 };
  for (const { verdict } of checks) verdicts[verdict]++;
  const tookMs = revocations.map(({ startMs, endMs }) => endMs - startMs).sort((a, b) => a - b);
  /** @type {Record<string, number>} */
  const by = { ack: 0, cursor: 0, released: 0, lease: 0 };
  for (const { confirmed } of revocations) for (const one of confirmed) by[one.by] = (by[one.by] ?? 0) + 1;
  return {
    name,
    checks: checks.length,
    verdicts,
    stale: stale.length,
    wronged: wronged.length,
    broken,
    examples: [...stale, ...wronged].slice(0, 5),
    revocations: revocations.length,
    medianMs: tookMs[Math.floor(tookMs.length / 2)] ?? 0,
    maxMs: tookMs.at(-1) ?? 0,
    by,
    refused: revocations.reduce((sum, { refused }) => sum + refused, 0),
    wholeMs,
  };
}

async function issue(/** @type {Cluster} */ cluster, /** @type {string} */ name) {
  const { status, body } = await cluster.call('POST', '/v1/tokens', { name: name.slice(0, 90) });
  if (status !== 201) throw new Error(`issuing returned ${status}`);
  return /** @type {{ id: string, secret: string }} */ (body);
}

/**
 * Asks until it is effective, at one token-service after the other.
 * @param {Cluster} cluster @param {string} id @param {number} first @returns {Promise<Revoked>}
 */
async function revoke(cluster, id, first) {
  const startMs = performance.now();
  for (let attempt = first, refused = 0; ; attempt++, refused++) {
    const service = cluster.tokenServices[attempt % cluster.tokenServices.length];
    if (!service) throw new Error('the cluster has no token-service');
    try {
      const options = { at: service, timeoutMs: REVOCATION_TIMEOUT_MS };
      const { status, body } = await cluster.call('POST', `/v1/tokens/${id}/revoke`, {}, options);
      const { effective, receipt } = /** @type {Partial<import('@latchkey/contracts').Effect>} */ (body);
      if (status === 200 && effective) {
        const confirmed = receipt?.verifiers ?? [];
        return { token: id, startMs, endMs: performance.now(), at: service.name, confirmed, refused };
      }
    } catch (error) {
      if (!(error instanceof Error)) throw error; // refused, reset, timed out: the next one is asked
    }
    if (performance.now() - startMs > 120_000) throw new Error('a revocation did not become effective in two minutes');
    await sleep(100);
  }
}

/** Waits until every gateway accepts every token. @param {Cluster} cluster @param {readonly { secret: string }[]} tokens */
export async function whole(cluster, tokens) {
  const untilMs = performance.now() + 60_000;
  for (const { name, url, process } of cluster.gateways) {
    const caller = new Caller(url, cluster.guardedPath);
    for (const { secret } of tokens) {
      for (;;) {
        const status = await caller.present(secret);
        if (status === 200) break;
        if (performance.now() > untilMs) {
          caller.close();
          const output = process.logs().slice(-2_000);
          throw new Error(
            `${name} returns ${status ?? 'nothing'} for a valid token a minute after the fault:\n${output}`,
          );
        }
        await sleep(50);
      }
    }
    caller.close();
  }
}
