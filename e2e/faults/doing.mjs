import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';

/** Repeats something until the returned function is called. @param {number} everyMs @param {() => unknown} work */
export function again(everyMs, work) {
  let running = true;
  const loop = (async () => {
    while (running) {
      await work();
      await sleep(everyMs);
    }
  })();
  loop.catch(() => undefined); // thrown where it is ended
  return async () => {
    running = false;
    await loop;
  };
}

/** Runs in the background; the returned function waits for it. @param {() => Promise<void>} work */
export function inBackground(work) {
  const done = work();
  done.catch(() => undefined); // thrown where it is awaited
  return async () => done;
}

/** A connection to a cluster's Redis that lives through its faults. @param {import('@latchkey/testing').Cluster} cluster */
export function redisOf(cluster) {
  const redis = new Redis(cluster.redis.url, { retryStrategy: () => 50, maxRetriesPerRequest: 1 });
  redis.on('error', () => undefined);
  return redis;
}

/**
 * The sum of a counter over some processes, of the lines whose labels contain the text.
 * @param {readonly import('@latchkey/testing').Member[]} members @param {string} name @param {string} label `reason="malformed"`, say
 */
export async function counted(members, name, label) {
  const texts = await Promise.all(
    members.map(async ({ opsUrl }) =>
      (await fetch(`${opsUrl}/metrics`, { signal: AbortSignal.timeout(5_000) })).text(),
    ),
  );
  return texts
    .flatMap((text) => text.split('\n'))
    .filter((line) => line.startsWith(`${name}{`) && line.includes(label))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
}

/** How a gateway's verifier is named: by its host and port. @param {import('@latchkey/testing').Member} gateway */
export const isVerifierOf = (gateway) => {
  const { port } = new URL(gateway.url);
  return (/** @type {{ name: string }} */ { name }) => name.endsWith(`:${port}`);
};
