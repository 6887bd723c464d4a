import { afterEach, expect, test } from '@jest/globals';
import { Client } from 'pg';
import { type TestDatabase, type TestDatabaseOptions, testDatabase } from '../src/index.js';

const open: TestDatabase[] = [];

afterEach(async () => {
  for (const database of open.splice(0)) await database.close();
});

async function database(options?: TestDatabaseOptions): Promise<TestDatabase> {
  const made = await testDatabase(options);
  open.push(made);
  return made;
}

/** A migration that counts how often it ran. */
function migration(fingerprint: string, sql: string) {
  const options = {
    runs: 0,
    fingerprint: `${fingerprint} ${process.pid} ${Date.now()}`,
    migrate: async (url: string) => {
      options.runs++;
      const client = new Client({ connectionString: url });
      await client.connect();
      await client.query(sql).finally(() => client.end());
    },
  };
  return options;
}

test('two databases of the same migrations share nothing', async () => {
  const options = migration('share', 'CREATE TABLE notes (note text)');
  const [one, two] = [await database(options), await database(options)];
  await one.query('INSERT INTO notes VALUES ($1)', ['mine']);
  expect(await one.query('SELECT note FROM notes')).toEqual([{ note: 'mine' }]);
  expect(await two.query('SELECT note FROM notes')).toEqual([]);
});

test('migrations run once for all databases that ask at the same time', async () => {
  const options = migration('once', 'CREATE TABLE notes (note text)');
  const all = await Promise.all([database(options), database(options), database(options)]);
  expect(options.runs).toBe(1);
  expect(new Set(all.map(({ name }) => name)).size).toBe(3);
});

test('other migrations make another template', async () => {
  const first = migration('first', 'CREATE TABLE a ()');
  const second = migration('second', 'CREATE TABLE b ()');
  await database(first);
  const made = await database(second);
  expect(await made.query("SELECT to_regclass('a') AS a, to_regclass('b')::text AS b")).toEqual([{ a: null, b: 'b' }]);
});

test('a failed migration throws its own error, and the next one starts from an empty database', async () => {
  const failing = migration('failing', 'CREATE TABLE a (); SELECT broken');
  await expect(database(failing)).rejects.toThrow('column "broken" does not exist');
  const mended = { ...migration('mended', 'CREATE TABLE a ()'), fingerprint: failing.fingerprint };
  expect(await (await database(mended)).query('SELECT * FROM a')).toEqual([]);
});

test('migrations without a fingerprint are refused', async () => {
  await expect(testDatabase({ migrate: async () => undefined })).rejects.toThrow('needs a fingerprint');
});

test('a closed database is gone, even while a client is connected', async () => {
  const made = await database();
  const other = await database();
  const client = new Client({ connectionString: made.url });
  client.on('error', () => undefined);
  await client.connect();
  await made.close();
  const left = await other.query('SELECT 1 FROM pg_database WHERE datname = $1', [made.name]);
  expect(left).toEqual([]);
  await client.end();
});
