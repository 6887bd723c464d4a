import { readdirSync } from 'node:fs';
import { chmod, mkdir } from 'node:fs/promises';
import path from 'node:path';

/**
 * @typedef {import('./compose.mjs').ComposePlace} Place
 * @typedef {import('./drill.mjs').Drill<Place>} Drill
 */

const LEDGER_COMMAND = ['node', 'apps/token-service/dist/ledger-command.js'];

/** Copies a volume to a folder of copies, with owners and times. @param {Place} place @param {string} volume */
const copyVolume = ({ inVolume }, volume) => inVolume(volume, `cp -a /volume /copies/${volume}`);

/** @param {Place} place @param {string} volume */
const putVolumeBack = ({ inVolume }, volume) =>
  inVolume(volume, `find /volume -mindepth 1 -delete; cp -a /copies/${volume}/. /volume`);

/** The data folder, while PostgreSQL is stopped for it. @param {Place} place */
async function copyData(place) {
  await place.compose('stop', 'postgres');
  await copyVolume(place, 'postgres-data');
  await place.compose('start', 'postgres');
}

/** Starts everything, and says when PostgreSQL accepts connections. @param {Place} place @param {() => void} restored */
const startAll = ({ up, databaseAnswers }, restored) => Promise.all([up(), databaseAnswers().then(restored)]);

/**
 * `backup`, with an identity of its own.
 * @param {Place} place
 * @returns {Promise<() => Promise<unknown>>} restores it into an empty database
 */
async function backedUp({ compose, dir }) {
  const key = path.join(dir, 'backups', 'drill.key');
  const recipient = (await compose('run', '--rm', '--no-deps', 'backup', 'keygen', '/backups/drill.key')).trim();
  await compose('run', '--rm', 'backup', '--recipient', recipient);
  const [file] = readdirSync(path.dirname(key)).filter((name) => name.endsWith('.age'));
  if (!file) throw new Error('no backup was written');
  return () => compose('run', '--rm', '-v', `${key}:/run/key:ro`, 'restore', file, '--identity-file', '/run/key');
}

/**
 * A backup is restored into a new volume, after something happened to others.
 * @param {(place: Place) => Promise<unknown>} meddle while everything is removed but the volumes
 * @returns {Drill['backUp']}
 */
const backupAndLedger = (meddle) => async (place) => {
  const restore = await backedUp(place);
  return async (restored) => {
    await place.compose('down');
    await place.docker('volume', 'rm', place.volume('postgres-data'));
    await meddle(place);
    await restore();
    restored();
    await place.up();
  };
};

/**
 * The data folder is put back while everything is stopped, and something happens to the ledger.
 * @param {(place: Place) => Promise<unknown>} before called when the backup is made
 * @param {(place: Place) => Promise<unknown>} meddle
 * @returns {Drill['backUp']}
 */
const dataAndLedger = (before, meddle) => async (place) => {
  await before(place);
  await copyData(place);
  return async (restored) => {
    await place.compose('down');
    await putVolumeBack(place, 'postgres-data');
    await meddle(place);
    await startAll(place, restored);
  };
};

const nothing = async () => undefined;
const removeLedger = (/** @type {Place} */ { docker, volume }) => docker('volume', 'rm', volume('ledger'));

/** Removes the last three lines of the segment that was written last, in its place. */
const CUT = `
  newest=$(find /volume -type f -regex '.*\\.[0-9][0-9][0-9][0-9][0-9][0-9]' -printf '%T@ %p\\n' | sort -n | tail -1 | cut -d' ' -f2-)
  test "$(wc -l <"$newest")" -gt 3
  head -n -3 "$newest" >/tmp/cut
  cat /tmp/cut >"$newest"`;

/** Leaves of a database what a new one has. pg_dump's own --clean cannot drop partitions. */
const EMPTY = `
  DROP SCHEMA public CASCADE;
  CREATE SCHEMA public AUTHORIZATION pg_database_owner;
  GRANT USAGE ON SCHEMA public TO PUBLIC`;

/** @type {Drill[]} */
export const composeDrills = [
  {
    id: '1',
    name: 'data folder put back, everything else running',
    settledBy: 'ledger',
    backUp: async (place) => {
      await copyData(place);
      return async (restored) => {
        await place.compose('stop', 'postgres');
        await putVolumeBack(place, 'postgres-data');
        await place.compose('start', 'postgres');
        await place.databaseAnswers();
        restored();
      };
    },
  },
  {
    id: '2',
    name: 'data folder put back, everything stopped',
    settledBy: 'ledger',
    backUp: async (place) => {
      await copyData(place);
      return async (restored) => {
        await place.compose('stop');
        await putVolumeBack(place, 'postgres-data');
        await startAll(place, restored);
      };
    },
  },
  {
    id: '3a',
    name: 'restart postgres',
    settledBy: 'nobody',
    backUp: async (place) => async (restored) => {
      await place.compose('restart', 'postgres');
      await place.databaseAnswers();
      restored();
    },
  },
  {
    id: '3b',
    name: 'restart of everything',
    settledBy: 'nobody',
    backUp: async (place) => async (restored) => {
      await place.compose('restart');
      await place.databaseAnswers();
      restored();
    },
  },
  {
    id: '3c',
    name: 'down and up',
    settledBy: 'nobody',
    backUp: async (place) => async (restored) => {
      await place.compose('down');
      await startAll(place, restored);
    },
  },
  {
    id: '4a',
    name: 'backup restored into a new database volume, ledger in its place',
    settledBy: 'ledger',
    backUp: backupAndLedger(nothing),
  },
  {
    id: '4b',
    name: 'new machine: backup restored, ledger imported as complete',
    settledBy: 'ledger',
    backUp: async (place) => {
      const { compose, dir, up } = place;
      const restore = await backedUp(place);
      const exported = path.join(dir, 'exported');
      const ledger = (/** @type {string[]} */ ...args) =>
        compose('run', '--rm', '--no-deps', '-v', `${exported}:/exported`, 'token-service', ...LEDGER_COMMAND, ...args);
      return async (restored) => {
        await mkdir(exported);
        await chmod(exported, 0o777);
        await compose('stop');
        await ledger('export', '/exported/ledger');
        await compose('down', '--volumes');
        await restore();
        restored();
        await ledger('import', '/exported/ledger', '--complete');
        await up();
      };
    },
  },
  {
    id: '5',
    name: 'backup restored into a new database volume, ledger volume removed',
    settledBy: 'revoke',
    reason: 'ledger_missing',
    backUp: backupAndLedger(removeLedger),
  },
  {
    id: '6a',
    name: 'pg_dump loaded into a new database of the same server, services stopped',
    settledBy: 'ledger',
    backUp: async ({ compose, up }) => {
      const postgres = (/** @type {string[]} */ ...args) => compose('exec', '-T', 'postgres', ...args);
      await postgres('pg_dump', '-Upostgres', '-dlatchkey', '--create', '--clean', '--if-exists', '-f/tmp/dump.sql');
      return async (restored) => {
        await compose('stop', 'gateway', 'token-service', 'jobs');
        await postgres('psql', '-Upostgres', '-dpostgres', '-vON_ERROR_STOP=1', '-q', '-f/tmp/dump.sql');
        restored();
        await up();
      };
    },
  },
  {
    id: '6b',
    name: 'pg_dump loaded into the emptied database, gateways running',
    settledBy: 'ledger',
    backUp: async ({ compose, up }) => {
      const postgres = (/** @type {string[]} */ ...args) => compose('exec', '-T', 'postgres', ...args);
      await postgres('pg_dump', '-Upostgres', '-dlatchkey', '-f/tmp/dump.sql');
      return async (restored) => {
        await compose('stop', 'token-service', 'jobs');
        await postgres(
          'psql',
          '-Upostgres',
          '-dlatchkey',
          '-vON_ERROR_STOP=1',
          '-q',
          '-1',
          `-c${EMPTY}`,
          '-f/tmp/dump.sql',
        );
        restored();
        await up();
      };
    },
  },
  {
    id: '7',
    name: 'data folder put back, ledger volume replaced by a copy of before the revocations',
    settledBy: 'revoke',
    reason: 'ledger_copied',
    backUp: dataAndLedger(
      (place) => copyVolume(place, 'ledger'),
      async (place) => {
        await removeLedger(place);
        await place.docker('volume', 'create', place.volume('ledger'));
        await putVolumeBack(place, 'ledger');
      },
    ),
  },
  {
    id: '8',
    name: 'data folder put back, last lines of the ledger removed',
    settledBy: 'revoke',
    reason: 'ledger_cut',
    backUp: dataAndLedger(nothing, (place) => place.inVolume('ledger', CUT)),
  },
];
