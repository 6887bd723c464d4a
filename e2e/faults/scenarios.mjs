import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { REDIS } from '@latchkey/contracts';
import { again, inBackground, redisOf } from './doing.mjs';
import { flood } from './flood.mjs';
import { historyScenarios } from './history-scenarios.mjs';
import { keyHolder } from './key-holder.mjs';
import { at, LEASE_MS } from './places.mjs';
import { replaced } from './replaced.mjs';

/**
 * @typedef {import('./trial.mjs').Scenario} Scenario
 */

/** The path of libfaketime; a system without it installed can have it unpacked elsewhere. */
const FAKETIME = process.env['LIBFAKETIME'] || '/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1';

/** @param {number} offsetSeconds @returns {Scenario} */
const steppedClock = (offsetSeconds) => {
  const file = { path: '' };
  const write = (/** @type {number} */ seconds) => writeFileSync(file.path, `${seconds < 0 ? '' : '+'}${seconds}\n`);
  return {
    name: `wall clock of a gateway and a token-service stepped by ${offsetSeconds / 3600} h`,
    ...(!existsSync(FAKETIME) && { needs: 'libfaketime (apt-get install libfaketime)' }),
    prepare: async ({ cluster }) => {
      const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-faketime-'));
      file.path = path.join(dir, 'offset');
      write(0);
      const env = {
        LD_PRELOAD: FAKETIME,
        FAKETIME_TIMESTAMP_FILE: file.path,
        FAKETIME_NO_CACHE: '1',
        FAKETIME_DONT_FAKE_MONOTONIC: '1',
        DONT_FAKE_MONOTONIC: '1',
      };
      const members = [at(cluster.tokenServices, 0), at(cluster.gateways, 0)];
      for (const member of members) await member.restart(env);
      return async () => {
        for (const member of members) await member.restart({ LD_PRELOAD: '' });
        rmSync(dir, { recursive: true, force: true });
      };
    },
    inject: async () => {
      write(offsetSeconds);
      return async () => write(0);
    },
  };
};

/** @type {readonly Scenario[]} */
export const scenarios = [
  { name: 'no fault', inject: async () => async () => undefined },
  {
    name: 'Redis killed, and restarted',
    inject: async ({ cluster: { redis } }) => {
      await redis.kill();
      return () => redis.restart();
    },
  },
  {
    name: 'Redis emptied in a loop',
    inject: async ({ cluster }) => {
      const redis = redisOf(cluster);
      const stop = again(20, () => redis.flushall());
      return async () => {
        await stop();
        redis.disconnect();
      };
    },
  },
  {
    name: "every subscriber's connection cut in a loop",
    inject: async ({ cluster }) => {
      const redis = redisOf(cluster);
      const stop = again(30, () => redis.call('CLIENT', 'KILL', 'TYPE', 'PUBSUB'));
      return async () => {
        await stop();
        redis.disconnect();
      };
    },
  },
  {
    name: 'a gateway frozen through the revocations, and woken',
    inject: async ({ cluster: { gateways } }) => {
      at(gateways, 0).process.pause();
      return async () => at(gateways, 0).process.resume();
    },
  },
  {
    name: 'a gateway killed',
    inject: async ({ cluster: { gateways } }) => {
      await at(gateways, 0).process.kill('SIGKILL');
      return () => at(gateways, 0).restart();
    },
  },
  {
    name: 'a token-service killed in the middle of revoking',
    inject: async ({ cluster: { tokenServices } }) => {
      const killing = inBackground(async () => {
        await sleep(400);
        await at(tokenServices, 0).process.kill('SIGKILL');
      });
      return async () => {
        await killing();
        await at(tokenServices, 0).restart();
      };
    },
  },
  {
    name: 'PostgreSQL stands still for three seconds',
    inject: async ({ cluster: { databaseLinks } }) => {
      for (const link of databaseLinks) link.stall();
      return inBackground(async () => {
        await sleep(3_000);
        for (const link of databaseLinks) link.heal();
      });
    },
  },
  {
    name: 'both token-services frozen for longer than a lease',
    inject: async ({ cluster: { tokenServices } }) => {
      for (const service of tokenServices) service.process.pause();
      return inBackground(async () => {
        await sleep(6_000);
        for (const service of tokenServices) service.process.resume();
      });
    },
  },
  {
    name: 'rolling restart of everything',
    inject: async ({ cluster: { tokenServices, gateways } }) =>
      inBackground(async () => {
        for (const member of [...tokenServices, ...gateways]) await member.restart();
      }),
  },
  steppedClock(3_600),
  steppedClock(-3_600),
  {
    name: 'everything on Redis doubled and replayed, with a gateway frozen',
    inject: async ({ cluster }) => {
      at(cluster.gateways, 1).process.pause();
      const [publisher, subscriber] = [redisOf(cluster), redisOf(cluster)];
      /** @type {Map<string, string>} */
      const messages = new Map();
      const publish = (/** @type {string} */ channel, /** @type {string} */ text) =>
        publisher.publish(channel, text).catch(() => undefined); // there is more to come
      subscriber.on('message', (channel, text) => {
        if (messages.has(text)) return;
        messages.set(text, channel);
        void publish(channel, text);
      });
      await subscriber.subscribe(REDIS.invalidations, REDIS.acknowledgements);
      const stop = again(100, () => Promise.all([...messages].map(([text, channel]) => publish(channel, text))));
      return async () => {
        await stop();
        publisher.disconnect();
        subscriber.disconnect();
        at(cluster.gateways, 1).process.resume();
      };
    },
  },
  {
    name: 'LEASE_MS shortened in a rolling restart, with a gateway frozen under the longer lease',
    prepare:
      async ({ cluster }) =>
      async () => {
        for (const service of cluster.tokenServices) await service.restart({ LEASE_MS: String(LEASE_MS) });
      },
    inject: async ({ cluster: { tokenServices, gateways } }) => {
      at(gateways, 2).process.pause();
      const restarting = inBackground(async () => {
        for (const service of tokenServices) await service.restart({ LEASE_MS: '1000' });
      });
      return async () => {
        await restarting();
        at(gateways, 2).process.resume();
      };
    },
  },
  {
    name: 'the key that signs invalidations replaced at once, in a rolling restart',
    inject: async ({ cluster: { tokenServices } }) => {
      const key = randomBytes(32).toString('base64url');
      return inBackground(async () => {
        for (const service of tokenServices) await service.restart({ EVENTS_SIGNING_KEY: key });
      });
    },
  },
  replaced,
  keyHolder,
  flood,
  ...historyScenarios,
];
