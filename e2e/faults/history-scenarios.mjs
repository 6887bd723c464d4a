/**
 * Which server, and which history: two primaries, pools with connections to both, and a data folder put back. Each has a
 * PostgreSQL of its own. What these promise is what the others do: once a revocation returned `effective: true`, no
 * check begun later is accepted. A deposed primary promises nothing but that: its revocations return 503 or nothing.
 *
 * A database put back to an earlier time forgets what was revoked since; what brings that back is not evaluated here, so
 * nothing is revoked between the backup and the restore. What was revoked before the backup is evaluated to the end.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { asService } from '@latchkey/testing';
import { again, counted, inBackground } from './doing.mjs';
import { at, LAPSED_MS, ownPlace } from './places.mjs';

/**
 * @typedef {import('./trial.mjs').Scenario} Scenario
 * @typedef {import('./trial.mjs').Place} Place
 * @typedef {import('./trial.mjs').Revoked} Revoked
 */

const openPair = () => ownPlace({ standBy: true });

/** Of a place opened with a stand-by. @param {Place} place */
function pair({ cluster, server, standBy }) {
  if (!server || !standBy) throw new Error('this scenario needs a PostgreSQL of its own and its stand-by');
  const [first, second] = [at(cluster.tokenServices, 0), at(cluster.tokenServices, 1)];
  return { cluster, server, standBy, first, second };
}

/** As an operator does who changes DATABASE_URL. @param {import('@latchkey/testing').Member} service @param {string} url */
const move = (service, url) => service.restart({ DATABASE_URL: asService(url) });

/** A deposed primary returns `effective: true` for no revocation. @param {string} name @param {readonly Revoked[]} revocations */
const neverEffectiveAt = (name, revocations) =>
  revocations.filter(({ at: service }) => service === name).map(({ token }) => `${name} called ${token} effective`);

/** @type {Scenario} */
const movedOneByOne = {
  name: 'old primary alive after a promotion, the token-services moved one by one',
  open: openPair,
  inject: async (place) => {
    const { standBy, first, second } = pair(place);
    await standBy.promote();
    const moving = inBackground(() => move(first, standBy.url));
    return async () => {
      await moving();
      await move(second, standBy.url);
    };
  },
  promises: ({ cluster }, revocations) => neverEffectiveAt(at(cluster.tokenServices, 1).name, revocations),
};

/** @returns {Scenario} */
function cancelledWaits() {
  let lost = 0;
  return {
    name: 'old primary alive, its waits for the stand-by cancelled, and revocations sent there first',
    open: openPair,
    firstAsked: 1,
    inject: async (place) => {
      const { server, standBy, first, second } = pair(place);
      await standBy.promote();
      // For each commit whose wait was cancelled PostgreSQL reports success, and a warning.
      const stop = again(30, () =>
        server.query(`SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`),
      );
      const moving = inBackground(() => move(first, standBy.url));
      return async () => {
        await moving();
        lost = await counted([second], 'latchkey_authority_proofs_total', 'outcome="lost"');
        await stop();
        await move(second, standBy.url);
      };
    },
    promises: ({ cluster }, revocations) => [
      ...neverEffectiveAt(at(cluster.tokenServices, 1).name, revocations),
      ...revocations
        .filter(({ refused }) => refused === 0)
        .map(({ token }) => `${token} was not asked for at the deposed primary`),
      ...(lost === 0 ? ['no proof was lost at the deposed primary: nothing was tried'] : []),
    ],
  };
}

/** New connections of a token-service go to one primary and the other in turn. @param {Place} place @param {readonly number[]} services */
function mixed(place, services) {
  const { cluster, server, standBy } = pair(place);
  const links = services.map((index) => at(cluster.databaseLinks, index));
  const reconnect = () => {
    for (const link of links) {
      link.cut();
      link.heal();
    }
  };
  for (const link of links) link.lead(server.url, standBy.url);
  const stop = again(1_500, reconnect);
  return async () => {
    await stop();
    for (const link of links) link.lead(standBy.url);
    reconnect();
  };
}

/** @type {Scenario} */
const mixedPool = {
  name: 'old primary alive, and one token-service with connections to both',
  open: openPair,
  inject: async (place) => {
    const { standBy, second } = pair(place);
    await standBy.promote();
    const heal = mixed(place, [0]);
    const moving = inBackground(() => move(second, standBy.url));
    return async () => {
      await moving();
      await heal();
    };
  },
};

/** @type {Scenario} */
const mixedPools = {
  name: 'old primary alive, and the address of the database leads to both in turn',
  open: openPair,
  inject: async (place) => {
    await pair(place).standBy.promote();
    return mixed(place, [0, 1]);
  },
};

/** @type {Scenario} */
const failOver = {
  name: 'the primary stopped, its stand-by promoted, the address moved',
  open: openPair,
  inject: async (place) => {
    const { cluster, server, standBy } = pair(place);
    await server.stop();
    await standBy.promote();
    for (const link of cluster.databaseLinks) link.lead(standBy.url);
    return async () => undefined;
  },
};

/** Spends transaction ids, so that the ids of an older history lie far below. @param {Place} place @param {number} ids */
async function spend({ server }, ids) {
  await server?.query(`DO $$ BEGIN FOR i IN 1..${ids} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$`);
}

/**
 * The data folder put back in place, which changes neither the system's identifier nor its timeline.
 * @param {string} name
 * @param {(place: Place) => Promise<() => Promise<void>>} meanwhile what else happens before it is put back, and after
 * the revocations @returns {Scenario}
 */
function putBack(name, meanwhile) {
  let copy = '';
  return {
    name,
    open: () => ownPlace(),
    issued: async (place, revokeOne) => {
      const { server } = place;
      if (!server) throw new Error('this scenario needs a PostgreSQL of its own');
      await revokeOne();
      await server.stop();
      copy = server.copy();
      await server.start();
      // The start adds an unowned lease, which is checked each second: that must not hide the restore.
      await sleep(LAPSED_MS + 2_500);
      await spend(place, 50);
      await sleep(1_500);
    },
    inject: async (place) => {
      const heal = await meanwhile(place);
      await place.server?.stop();
      place.server?.putBack(copy);
      await place.server?.start();
      return heal;
    },
  };
}

const restores = [
  putBack('the data folder put back from a backup, with the gateways running', async () => async () => undefined),
  // None is awake to show that its history was forgotten, and none finds in its socket what was published meanwhile.
  putBack('the data folder put back from a backup, with all gateways frozen and Redis lost', async (place) => {
    const { gateways, redis } = place.cluster;
    for (const { process } of gateways) process.pause();
    await redis.kill();
    return async () => {
      await spend(place, 400);
      await redis.restart();
      for (const { process } of gateways) process.resume();
    };
  }),
  putBack('the data folder put back from a backup, with the gateways stopped and started', async ({ cluster }) => {
    const [ended, killed] = [at(cluster.gateways, 0), at(cluster.gateways, 1)];
    await Promise.all([ended.process.stop(), killed.process.kill('SIGKILL')]);
    return inBackground(async () => {
      await sleep(1_000);
      await Promise.all([ended.restart(), killed.restart()]);
    });
  }),
];

/** @type {readonly Scenario[]} */
export const historyScenarios = [movedOneByOne, cancelledWaits(), mixedPool, mixedPools, failOver, ...restores];
