import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { type TestDatabase, testDatabase, waitFor } from '@latchkey/testing';
import { Client } from 'pg';
import { entriesOf, PART_BYTES, writeArchive } from '../src/archive.js';
import { type BackupOptions, backup } from '../src/backup.js';
import { tablesOf } from '../src/catalog.js';
import { partName, readContents } from '../src/content.js';
import { encryption, newIdentity } from '../src/keys.js';
import { restore } from '../src/restore.js';

const PASSPHRASE = 'six random words make a passphrase';
const unlock = { passphrase: PASSPHRASE };

/** As small as a database can be that looks like one of Latchkey. */
const SCHEMA = `
CREATE TABLE migrations (id serial PRIMARY KEY, name text NOT NULL);
INSERT INTO migrations (name) VALUES ('First1');
CREATE TABLE invalidation_log (log uuid NOT NULL);
CREATE TABLE audit_events (id uuid, at timestamptz(3), actor_type text, actor_id uuid, actor_name text, action text,
  token_id uuid, project_id uuid, subject_type text, subject_id text, subject_name text, ip text, user_agent text,
  request_id text, details jsonb) PARTITION BY RANGE (at);
CREATE TABLE audit_links (seq bigint, event_id uuid, event_at timestamptz(3), hash bytea);
CREATE TABLE audit_checkpoints (seq bigint, hash bytea, at timestamptz(3), kind text, public_key text, signature bytea);
CREATE TABLE sessions (id uuid);
CREATE TABLE z_first (id integer PRIMARY KEY);
CREATE TABLE a_second (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  "of, first" integer REFERENCES z_first,
  before bigint REFERENCES a_second,
  text text,
  twice integer GENERATED ALWAYS AS ("of, first" * 2) STORED);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON z_first FOR EACH ROW EXECUTE FUNCTION refuse();`;

const ROWS = `
INSERT INTO invalidation_log VALUES ('0197f000-0000-7000-8000-000000000000');
ALTER TABLE z_first DISABLE TRIGGER refuse;
INSERT INTO z_first VALUES (1), (2);
ALTER TABLE z_first ENABLE TRIGGER refuse;
INSERT INTO a_second ("of, first", before, text) VALUES (1, 2, E'tab\\t, line\\n, \\\\.'), (2, 1, NULL), (NULL, NULL, '');
INSERT INTO sessions VALUES (gen_random_uuid());`;

let dir: string;
let database: TestDatabase;
beforeAll(async () => {
  dir = mkdtempSync(path.join(tmpdir(), 'latchkey-archive-'));
  database = await testDatabase();
  await database.query(SCHEMA);
  await database.query(ROWS);
});
afterAll(async () => {
  await database.close();
  rmSync(dir, { recursive: true });
});

let files = 0;
const newFile = () => path.join(dir, `${++files}.age`);
const take = (options: Partial<BackupOptions> = {}) =>
  backup({
    databaseUrl: database.url,
    secrets: { TOKEN_PEPPERS: 'pepper' },
    files: {},
    file: newFile(),
    lock: unlock,
    workFactor: 8,
    ...options,
  });

const failureOf = (promise: Promise<unknown>): Promise<Error> =>
  promise.then(
    () => Promise.reject(new Error('it succeeded')),
    (error: Error) => error,
  );

async function into(target: TestDatabase, file: string, migrate = SCHEMA) {
  let migrated = false;
  return restore({
    file,
    unlock,
    target: async () => ({
      databaseUrl: target.url,
      migrate: async () => {
        if (!migrated) await target.query(migrate);
        migrated = true;
      },
    }),
  });
}

test('rows, sequences, references and special characters are restored; triggers do not act on them, and do afterwards', async () => {
  const { file, manifest } = await take();
  expect(manifest.tables.map(({ name }) => name)).not.toContain('sessions');
  await using target = await testDatabase();
  await into(target, file);
  const rows = 'SELECT * FROM a_second ORDER BY id';
  expect(await target.query(rows)).toEqual(await database.query(rows));
  expect(await target.query('INSERT INTO a_second DEFAULT VALUES RETURNING id')).toEqual([{ id: '4' }]);
  await expect(target.query('INSERT INTO z_first VALUES (3)')).rejects.toThrow(/refused/);
  expect(await target.query('SELECT FROM sessions')).toEqual([]);
});

test('a row that refers to a missing one is refused, and nothing is committed', async () => {
  await using source = await testDatabase();
  await source.query(SCHEMA.replace('REFERENCES z_first', ''));
  await source.query(ROWS.replace('VALUES (1, 2,', 'VALUES (77, 2,'));
  const { file } = await take({ databaseUrl: source.url });
  await using target = await testDatabase();
  const { message } = await failureOf(into(target, file));
  expect(message).toMatch(/loading a_second: .*foreign key.*drop the database .* create it again, and repeat/);
  expect(await target.query('SELECT FROM z_first')).toEqual([]);
});

test('tables that refer to each other are reported by name', async () => {
  await using circular = await testDatabase();
  await circular.query(
    'CREATE TABLE one (id integer PRIMARY KEY); CREATE TABLE two (id integer PRIMARY KEY REFERENCES one); ALTER TABLE one ADD FOREIGN KEY (id) REFERENCES two',
  );
  const db = new Client({ connectionString: circular.url });
  await db.connect();
  await expect(tablesOf(db)).rejects.toThrow('one, two refer to each other');
  await db.end();
});

test('the transaction of a backup has no id, so that no confirmation waits for it, and it locks no table against changes', async () => {
  const blocking = new Client({ connectionString: database.url });
  await blocking.connect();
  try {
    await blocking.query('BEGIN; LOCK TABLE z_first');
    const taking = take();
    const waiting = () =>
      database.query(
        `SELECT backend_xid AS id FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
         AND application_name = 'latchkey-backup'`,
      );
    expect(await waitFor(async () => (await waiting())[0])).toEqual({ id: null });
    await database.query('UPDATE a_second SET text = text');
    await blocking.query('ROLLBACK');
    await taking;
  } finally {
    await blocking.end();
  }
});

describe('encryption', () => {
  test('to recipients: each identity opens it, another does not, and the identity that read it back is gone', async () => {
    const [one, two, other] = await Promise.all([newIdentity(), newIdentity(), newIdentity()]);
    const { file } = await take({ lock: { recipients: [one!.recipient, two!.recipient] } });
    for (const { text } of [one!, two!]) await readContents(file, { identities: [text.split('\n')[1]!] });
    await expect(readContents(file, { identities: [other!.text.split('\n')[1]!] })).rejects.toThrow(
      /none of the identities belongs to a recipient/,
    );
    await expect(readContents(file, unlock)).rejects.toThrow(/cannot be decrypted/);
  });

  test('with a passphrase: another one is refused, and a short one is not taken', async () => {
    const { file } = await take();
    await expect(readContents(file, { passphrase: 'another passphrase' })).rejects.toThrow(/passphrase is another one/);
    await expect(take({ lock: { passphrase: 'short' } })).rejects.toThrow(/fewer than 16 characters/);
  });

  test('an identity in the place of a recipient is refused, and not printed', async () => {
    const { text } = await newIdentity();
    const identity = text.split('\n')[1]!;
    const { message } = await failureOf(take({ lock: { recipients: [identity] } }));
    expect(message).toMatch(/an identity, which is secret/);
    expect(message).not.toContain(identity.slice(16));
  });

  test('no secret and no row is readable in the file', async () => {
    const { file } = await take({ secrets: { TOKEN_PEPPERS: 'a-pepper-to-look-for' } });
    expect(readFileSync(file).includes('a-pepper')).toBe(false);
  });
});

describe('the file', () => {
  test('an existing one is not overwritten', async () => {
    const { file } = await take();
    const before = readFileSync(file);
    await expect(take({ file })).rejects.toThrow(/exists; a backup overwrites nothing/);
    expect(readFileSync(file)).toEqual(before);
  });

  test('of a backup that failed, nothing is left', async () => {
    const file = newFile();
    await expect(take({ file, databaseUrl: 'postgres://nobody@127.0.0.1:1/none' })).rejects.toThrow(
      /PostgreSQL at 127\.0\.0\.1:1\/none cannot be reached/,
    );
    await expect(take({ file: path.join(dir, 'missing', 'x.age') })).rejects.toThrow(/ENOENT/);
    expect([existsSync(file), existsSync(`${file}.partial`)]).toEqual([false, false]);
  });

  test('that cannot be written to its end is reported by its name', async () => {
    const failing = {
      encrypt: async (plain: ReadableStream<Uint8Array>) =>
        plain.pipeThrough(
          new TransformStream({
            transform: () => {
              throw Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
            },
          }),
        ),
    };
    const file = newFile();
    const writing = writeArchive(file, failing as never, async (add) => {
      for (let i = 0; i < 20; i++) await add(String(i), randomBytes(1024 * 1024));
    });
    await expect(writing).rejects.toThrow(`writing ${file} failed: ENOSPC`);
    await setTimeout(100); // nothing fails later, where no one catches it
  });

  test('of a role that may not read everything is not written, and the message says who may', async () => {
    const role = new URL(database.url);
    role.searchParams.set('options', '-c role=pg_monitor');
    await expect(take({ databaseUrl: role.href })).rejects.toThrow(
      /failed: permission denied .*; connect as the owner/,
    );
  });

  test('a truncated one is refused at every length', async () => {
    const { file } = await take();
    const whole = readFileSync(file);
    for (const length of [0, 10, 200, whole.length - 1]) {
      writeFileSync(file, whole.subarray(0, length));
      expect((await failureOf(readContents(file, unlock))).name).toBe('BackupError');
    }
  });

  /** An archive of given entries, encrypted as a backup is. */
  async function made(entries: [string, string][]): Promise<string> {
    const file = newFile();
    const { encrypter } = await encryption(unlock, 8);
    await writeArchive(file, encrypter, async (add) => {
      for (const [name, data] of entries) await add(name, Buffer.from(data));
    });
    return file;
  }

  test('one in which a row, an entry or the end was exchanged is refused by the name of the entry', async () => {
    const { file } = await take({ files: { 'gateway.yaml': Buffer.from('routes') } });
    const entries: [string, string][] = [];
    for await (const { name, data } of entriesOf(file, unlock)) entries.push([name, data.toString()]);
    await readContents(await made(entries), unlock);
    const changed = (name: string, change: (data: string) => string | null) =>
      made(
        entries.flatMap(([each, data]): [string, string][] => {
          const result = each === name ? change(data) : data;
          return result === null ? [] : [[each, result]];
        }),
      );
    const table = `tables/z_first/${partName(0)}`;
    const cases: [string, (data: string) => string | null, RegExp][] = [
      [table, (data) => data.replace('2', '3'), /tables\/z_first is not what was written/],
      [table, () => null, /tables\/z_first is not what was written/],
      ['secrets/TOKEN_PEPPERS', () => 'another', /secrets\/TOKEN_PEPPERS is not what was written/],
      ['secrets/TOKEN_PEPPERS', () => null, /no entry secrets\/TOKEN_PEPPERS/],
      ['files/gateway.yaml', () => '', /files\/gateway\.yaml is not what was written/],
      ['digests.json', () => null, /no entry digests\.json/],
      ['manifest.json', () => null, /does not begin with a manifest/],
      [
        'manifest.json',
        (data) => data.replace('"format": 1', '"format": 2'),
        /has format 2, and this Latchkey reads format 1/,
      ],
      ['manifest.json', (data) => data.replace('"log": "', '"log": "x'), /manifest\.json is not valid \(log: /],
    ];
    for (const [name, change, message] of cases)
      await expect(readContents(await changed(name, change), unlock)).rejects.toThrow(message);
    await expect(readContents(await made([...entries, ['more', '']]), unlock)).rejects.toThrow(
      /entry more behind its end/,
    );
  });
});

describe('memory is bounded', () => {
  const part = Buffer.alloc(1024 * 1024, 'row\n');

  test('writing waits when the file cannot take more', async () => {
    let added = 0;
    const stalled = {
      encrypt: async (plain: ReadableStream) => plain.pipeThrough(new TransformStream({ transform: stop })),
    };
    const stop = () => new Promise<void>(() => undefined);
    void writeArchive(newFile(), stalled as never, async (add) => {
      for (;;) {
        // Random, so that compressing makes nothing smaller.
        await add(`tables/x/${partName(added)}`, randomBytes(part.length));
        added++;
      }
    });
    await setTimeout(500);
    const before = added;
    await setTimeout(500);
    expect([added, added < 16]).toEqual([before, true]);
  });

  test('reading goes no further than the reader', async () => {
    const file = newFile();
    const { encrypter } = await encryption(unlock, 8);
    await writeArchive(file, encrypter, async (add) => {
      for (let i = 0; i < 100; i++) await add(`tables/x/${partName(i)}`, part);
    });
    const before = process.memoryUsage().arrayBuffers;
    const entries = entriesOf(file, unlock);
    await entries.next();
    await setTimeout(500);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(50_000_000);
    await entries.return(undefined);
  });

  test('a table longer than a part, and a row longer than one, are restored', async () => {
    await using large = await testDatabase();
    await large.query(SCHEMA);
    await large.query(ROWS);
    await large.query(
      `INSERT INTO a_second (text) SELECT repeat(md5(n::text), n * 40000) FROM generate_series(1, 5) n`,
    );
    const { file, digests } = await take({ databaseUrl: large.url });
    expect(digests.tables['a_second']!.bytes).toBeGreaterThan(4 * PART_BYTES);
    await using target = await testDatabase();
    await into(target, file);
    const rows = 'SELECT id, md5(text) FROM a_second ORDER BY id';
    expect(await target.query(rows)).toEqual(await large.query(rows));
  });
});
