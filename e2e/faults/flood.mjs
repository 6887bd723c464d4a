/**
 * An attacker who can write to Redis and has no key: messages forged, replayed, cut short and far too long, thousands a second,
 * on every channel and stream. They can cost time; they confirm nothing, deny nothing, end no process, and
 * /metrics counts what was dropped and why.
 */
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { startCluster } from '@latchkey/testing';
import { counted, isVerifierOf } from './doing.mjs';
import { at, CLUSTER, LEASE_MS } from './places.mjs';

/** Reasons by which drops are counted, each of which must have been met. @type {readonly [string, readonly string[], 'gateways' | 'tokenServices' | 'jobs'][]} */
const DROPS = [
  ['latchkey_feed_dropped_total', ['too_long', 'malformed', 'unknown_key', 'not_authentic'], 'gateways'],
  [
    'latchkey_acknowledgements_dropped_total',
    ['too_long', 'malformed', 'not_awaited', 'not_authentic'],
    'tokenServices',
  ],
  ['latchkey_usage_batches_total', ['malformed', 'not_authentic', 'applied'], 'jobs'],
];

/** @returns {import('./trial.mjs').Scenario} */
function makeFlood() {
  let report = { sent: 0, seconds: 0 };
  return {
    name: 'forged, replayed, cut and oversized messages on every channel, thousands a second',
    open: async () => {
      const cluster = await startCluster({ ...CLUSTER, jobs: true });
      return { cluster, close: () => cluster.close() };
    },
    inject: async ({ cluster }) => {
      const frozen = at(cluster.gateways, 1);
      const leases = await cluster.database.query('SELECT verifier_id FROM leases');
      const verifiers = leases.map((row) => String(row['verifier_id']));
      const forger = new Worker(new URL('./forger.mjs', import.meta.url), {
        workerData: { redisUrl: cluster.redis.url, verifiers },
      });
      await once(forger, 'message'); // it has begun
      frozen.process.pause();
      return async () => {
        forger.postMessage('enough');
        [report] = await once(forger, 'message');
        frozen.process.resume();
        await sleep(LEASE_MS); // jobs goes on reading
      };
    },
    promises: async ({ cluster }, revocations) => {
      const { gateways, tokenServices, jobs } = cluster;
      if (!jobs) throw new Error('this scenario needs jobs');
      const members = { gateways, tokenServices, jobs: [jobs] };
      const isFrozen = isVerifierOf(at(gateways, 1));
      const perSecond = Math.round(report.sent / report.seconds);
      console.log(`  (${report.sent} messages, ${perSecond} a second)`);
      /** @type {string[]} */
      const broken = [];
      for (const { token, confirmed } of revocations)
        for (const { by } of confirmed.filter(isFrozen))
          if (by !== 'lease') broken.push(`the frozen gateway confirmed ${token} by ${by}`);
      for (const [name, reasons, who] of DROPS)
        for (const reason of reasons)
          if ((await counted(members[who], name, `="${reason}"`)) === 0) broken.push(`${name} counts no ${reason}`);
      for (const { name, process } of [...gateways, ...tokenServices, jobs]) {
        const ended = await Promise.race([process.exited, sleep(0)]);
        if (ended) broken.push(`${name} ended: ${process.logs().slice(-500)}`);
      }
      return broken;
    },
  };
}

export const flood = makeFlood();
