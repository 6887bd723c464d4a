import { rmSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { backup, migrateBy, restore } from '@latchkey/backup';
import { ownServer, waitFor } from '@latchkey/testing';
import {
  archive,
  copyFolder,
  copyRunning,
  cutLedger,
  detachStandBy,
  failOver,
  ledgerCommand,
  maintenance,
  putBack,
  recoverTo,
  repository,
  serverFrom,
  startCopiedPrograms,
  startService,
  stopService,
} from './servers.mjs';

/**
 * @typedef {import('./place.mjs').Place} Place
 * @typedef {import('./drill.mjs').Drill<Place>} Drill
 */

const PASSPHRASE = 'six random words of a drill';

/** The archive of `npm run backup`. @param {Place} place */
async function archived({ server, dir }) {
  const file = path.join(dir, 'backup.tar.gz.age');
  await backup({
    databaseUrl: server.url,
    secrets: {},
    files: {},
    file,
    lock: { passphrase: PASSPHRASE },
    workFactor: 10,
  });
  return file;
}

/** @param {string} file @param {string} databaseUrl an empty database */
async function restoreInto(file, databaseUrl) {
  const migrate = migrateBy(path.join(repository, 'apps/token-service/dist/migrate.js'), databaseUrl);
  await restore({ file, unlock: { passphrase: PASSPHRASE }, target: async () => ({ databaseUrl, migrate }) });
}

/**
 * The folder is put back while the token-service is stopped, and something happens to its ledger.
 * @param {(place: Place) => void} before called when the backup is made
 * @param {(place: Place) => void} meddle
 * @returns {Drill['backUp']}
 */
const folderAndLedger = (before, meddle) => async (place) => {
  before(place);
  const copy = await copyFolder(place);
  return async (restored) => {
    await stopService(place);
    meddle(place);
    await putBack(place, copy, restored);
    await startService(place);
  };
};

const exported = (/** @type {Place} */ { dir }) => path.join(dir, 'exported');
const dropLedger = (/** @type {Place} */ { cluster }) => rmSync(cluster.ledger.dir, { recursive: true });

/** @type {Drill[]} */
export const drills = [
  {
    id: '1a',
    name: 'database dropped and restored from a dump, in place',
    settledBy: 'ledger',
    backUp: async (place) => {
      const client = await maintenance(place);
      const clear = () =>
        client.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'latchkey'`);
      await waitFor(async () => {
        await clear();
        return client.query('CREATE DATABASE dump TEMPLATE latchkey STRATEGY file_copy');
      });
      return async (restored) => {
        await client.query('DROP DATABASE latchkey WITH (FORCE)');
        await client.query('ALTER DATABASE dump RENAME TO latchkey');
        restored();
      };
    },
  },
  {
    id: '1b',
    name: 'backup restored into a new database of the same server',
    settledBy: 'ledger',
    backUp: async (place) => {
      const file = await archived(place);
      return async (restored) => {
        await stopService(place);
        const client = await maintenance(place);
        await client.query('CREATE DATABASE restored');
        const url = new URL(place.server.url);
        url.pathname = '/restored';
        await restoreInto(file, url.href);
        restored();
        await startService(place, { url: url.href });
      };
    },
  },
  {
    id: '2',
    name: 'data folder put back, everything running',
    settledBy: 'ledger',
    backUp: async (place) => {
      const copy = await copyFolder(place);
      return (restored) => putBack(place, copy, restored);
    },
  },
  {
    id: '3',
    name: 'data folder put back, gateways and token-service stopped',
    settledBy: 'ledger',
    backUp: async (place) => {
      const copy = await copyFolder(place);
      const { gateways } = place.cluster;
      return async (restored) => {
        await Promise.all(gateways.map(({ process }) => process.stop()));
        await stopService(place);
        await putBack(place, copy, restored);
        await startService(place);
        await Promise.all(gateways.map((gateway) => gateway.restart()));
      };
    },
  },
  {
    id: '4',
    name: 'another server from a copied folder, ledger imported as complete',
    settledBy: 'ledger',
    backUp: async (place) => {
      const copy = await copyFolder(place);
      return async (restored) => {
        await stopService(place);
        await place.server.stop();
        ledgerCommand(place, ['export', exported(place)]);
        const other = await serverFrom(place, copy);
        restored();
        const ledger = path.join(place.dir, 'ledger');
        ledgerCommand(place, ['import', exported(place), '--complete'], ledger);
        await startService(place, { url: other.url, ledger });
      };
    },
  },
  {
    id: '5',
    name: 'data folder put back, ledger lost',
    settledBy: 'revoke',
    reason: 'ledger_missing',
    backUp: folderAndLedger(() => undefined, dropLedger),
  },
  {
    id: '6',
    name: 'data folder put back, ledger of before the revocations imported',
    settledBy: 'revoke',
    reason: 'ledger_copied',
    backUp: folderAndLedger(
      (place) => ledgerCommand(place, ['export', exported(place)]),
      (place) => {
        dropLedger(place);
        ledgerCommand(place, ['import', exported(place)]);
      },
    ),
  },
  {
    id: '7',
    name: 'data folder put back, last lines of the ledger removed',
    settledBy: 'revoke',
    reason: 'ledger_cut',
    backUp: folderAndLedger(
      () => undefined,
      (place) => cutLedger(place, 3),
    ),
  },
  {
    id: '8',
    name: 'recovered to a point in time before the revocations',
    settledBy: 'ledger',
    prepare: async (place) => void (await archive(place)),
    backUp: async (place) => {
      const { server, dir } = place;
      const copy = await copyRunning(place);
      const [row] = await server.query('SELECT clock_timestamp()::text AS now');
      await sleep(1_200);
      return async (restored) => {
        const [{ file } = {}] = await server.query('SELECT pg_walfile_name(pg_switch_wal()) AS file');
        await waitFor(
          async () =>
            (await server.query(`SELECT 1 FROM pg_stat_archiver WHERE last_archived_wal >= '${file}'`)).length > 0,
          { timeoutMs: 30_000, what: 'archiving' },
        );
        recoverTo(place, copy, path.join(dir, 'archive'), String(row?.['now']));
        await putBack(place, copy, restored);
      };
    },
  },
  {
    id: '9a',
    name: 'failover to a standby that lost nothing',
    standBy: true,
    settledBy: 'nobody',
    backUp: async (place) => (restored) => failOver(place, restored),
  },
  {
    id: '9b',
    name: 'failover to a standby that lost one revocation',
    standBy: true,
    settledBy: 'ledger',
    backUp: async (place) => (restored) => failOver(place, restored),
    lose: detachStandBy,
  },
  {
    id: '10',
    name: 'failover to a standby without a ledger',
    standBy: true,
    ledger: false,
    settledBy: 'verifiers',
    backUp: async (place) => (restored) => failOver(place, restored),
  },
  {
    id: '11',
    name: 'restart of PostgreSQL, and of everything',
    settledBy: 'nobody',
    backUp:
      async ({ cluster, server }) =>
      async (restored) => {
        await server.stop();
        await server.start();
        await sleep(3_000);
        await Promise.all([...cluster.gateways, ...cluster.tokenServices].map(({ process }) => process.stop()));
        await server.stop();
        await cluster.redis.restart();
        await server.start();
        restored();
        for (const member of [...cluster.tokenServices, ...cluster.gateways]) await member.restart();
      },
  },
  {
    id: '12',
    name: 'minor upgrade: other programs on the same data folder',
    settledBy: 'nobody',
    backUp: async (place) => async (restored) => {
      await place.server.stop();
      await startCopiedPrograms(place);
      restored();
    },
  },
  {
    id: '13',
    name: 'moved to another server by a backup, ledger in its place',
    settledBy: 'ledger',
    backUp: async (place) => {
      const file = await archived(place);
      return async (restored) => {
        await stopService(place);
        await place.server.stop();
        const other = await ownServer(async () => undefined);
        place.closing.push(() => other.close());
        await restoreInto(file, other.url);
        restored();
        await startService(place, { url: other.url });
      };
    },
  },
];
