/** What benchmarks do with a cluster of real processes. */
import { request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

/** @typedef {import('@latchkey/testing').Cluster} Cluster */
/** @typedef {{ id: string, secret: string }} Issued */

/** Issues a token of the administrator. @param {Cluster} cluster @param {string} name @param {object} [more] @returns {Promise<Issued>} */
export async function issue(cluster, name, more = {}) {
  const { status, body } = await cluster.call('POST', '/v1/tokens', { name, ...more });
  if (status !== 201) throw new Error(`issuing returned ${status}`);
  return /** @type {Issued} */ (body);
}

/**
 * Works on so many things, eight at once.
 * @template T
 * @param {number} count
 * @param {(i: number) => Promise<T>} work
 * @returns {Promise<T[]>}
 */
export async function many(count, work) {
  /** @type {T[]} */
  const results = new Array(count);
  let next = 0;
  const worker = async () => {
    while (next < count) {
      const i = next++;
      results[i] = await work(i);
    }
  };
  await Promise.all(Array.from({ length: 8 }, worker));
  return results;
}

/**
 * Calls a token-service by the plainest means, so that the caller's own work is not what is measured.
 * @param {Cluster} cluster
 * @param {import('node:http').Agent} agent
 * @returns {(method: string, path: string, body: unknown) => Promise<{ status: number, body: unknown }>}
 */
export const plainCalls = (cluster, agent) => (method, path, body) =>
  new Promise((resolve, reject) => {
    const headers = { cookie: cluster.cookie, 'content-type': 'application/json' };
    const url = new URL(path, cluster.tokenServices[0]?.url);
    const sent = request(url, { method, agent, headers }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk) => {
        text += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: JSON.parse(text) }));
    });
    sent.on('error', reject).end(JSON.stringify(body));
  });

/**
 * Begins work at fixed times, whether earlier ones have returned or not.
 * @template T
 * @param {number} perSecond
 * @param {readonly T[]} items
 * @param {(item: T) => Promise<unknown>} work
 * @returns {Promise<number[]>} milliseconds each took
 */
export function atRate(perSecond, items, work) {
  const startMs = performance.now();
  return Promise.all(
    items.map(async (item, n) => {
      await sleep(Math.max(0, startMs + (n * 1_000) / perSecond - performance.now()));
      const sentMs = performance.now();
      await work(item);
      return performance.now() - sentMs;
    }),
  );
}

/**
 * Revokes one token after the other at fixed times until it is enough.
 * @param {Cluster} cluster
 * @param {number} perSecond
 * @param {() => Promise<{ id: string }> | { id: string } | undefined} next none: enough
 * @param {() => boolean} isEnough
 * @returns {Promise<number[]>} milliseconds until each was effective
 */
export async function revokeWhile(cluster, perSecond, next, isEnough) {
  /** @type {Promise<number>[]} */
  const running = [];
  while (!isEnough()) {
    const one = next();
    if (!one) break;
    running.push(
      (async () => {
        const { id } = await one;
        const sentMs = performance.now();
        const { status, body } = await cluster.call('POST', `/v1/tokens/${id}/revoke`, {});
        if (status !== 200) throw new Error(`returned ${status} ${JSON.stringify(body)}`);
        return performance.now() - sentMs;
      })(),
    );
    await sleep(1_000 / perSecond);
  }
  return Promise.all(running);
}
