import { randomUUID } from 'node:crypto';
import { type TestDatabase, testDatabase } from '@latchkey/testing';
import { Client } from 'pg';
import { migrate } from '../src/migrate.js';
import { asRole } from './database.js';

let database: TestDatabase;

beforeAll(async () => {
  database = await testDatabase();
});
afterAll(() => database.close());

async function as<T>(role: Parameters<typeof asRole>[1], use: (db: Client) => Promise<T>): Promise<T> {
  const client = new Client({ connectionString: asRole(database.url, role) });
  await client.connect();
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}

const insertEvent = `INSERT INTO audit_events (id, at, actor_type, actor_name, action)
  VALUES ($1, $2, 'system', 'test', 'session.started')`;

describe('migrating', () => {
  test('concurrent migrations all succeed, and each migration runs once', async () => {
    const runs = await Promise.all([migrate(database.url), migrate(database.url), migrate(database.url)]);
    const names = runs.flat();
    expect(names.length).toBeGreaterThan(0);
    expect(new Set(names).size).toBe(names.length);
    expect(await migrate(database.url)).toEqual([]);
  });

  test('a database role given a password can log in with it, and with no other', async () => {
    const password = `pw-${randomUUID()}`;
    await migrate(database.url, { latchkey_retention: password });
    const url = new URL(database.url);
    url.username = 'latchkey_retention';
    url.password = password;
    const right = new Client({ connectionString: url.href });
    await right.connect();
    await right.end();
    url.password = 'another-password-of-length';
    const wrong = new Client({ connectionString: url.href });
    await expect(wrong.connect()).rejects.toThrow(/password authentication failed/);
  });

  test('no one can change the audit log, the owner of the schema included, and the error says why', async () => {
    await database.query(insertEvent, [randomUUID(), new Date()]);
    for (const table of ['audit_events', 'audit_events_default']) {
      const other = new Date('2020-01-05');
      if (table === 'audit_events_default') await database.query(insertEvent, [randomUUID(), other]);
      for (const sql of [`UPDATE ${table} SET action = 'x'`, `DELETE FROM ${table}`, `TRUNCATE ${table}`])
        await expect(database.query(sql)).rejects.toThrow(/append-only/);
    }
  });

  test('an audit partition named directly is append-only too', async () => {
    const partitions = await database.query<{ name: string }>(
      `SELECT tableoid::regclass::text AS name FROM audit_events WHERE at > now() - interval '1 day'`,
    );
    for (const sql of ['UPDATE $ SET action = action', 'DELETE FROM $', 'TRUNCATE $'])
      await expect(database.query(sql.replace('$', partitions[0]!.name))).rejects.toThrow(/append-only/);
  });

  test("the token-service's role can only add and read audit rows, and jobs' role only read them", async () => {
    for (const role of ['latchkey_service', 'latchkey_jobs'] as const) {
      await as(role, async (db) => {
        const inserted = db.query(insertEvent, [randomUUID(), new Date()]);
        if (role === 'latchkey_service') await inserted;
        else await expect(inserted).rejects.toThrow(/permission denied/);
        await db.query('SELECT 1 FROM audit_events');
        for (const sql of [
          'UPDATE audit_events SET action = $$x$$',
          'DELETE FROM audit_events',
          'TRUNCATE audit_events',
        ])
          await expect(db.query(sql)).rejects.toThrow(/permission denied/);
        await expect(db.query(`SELECT audit_retire()`)).rejects.toThrow(/permission denied/);
      });
    }
    await as('latchkey_jobs', async (db) => {
      await expect(db.query('SELECT hash FROM tokens')).rejects.toThrow(/permission denied/);
      await expect(db.query('SELECT password_hash FROM users')).rejects.toThrow(/permission denied/);
      await expect(db.query('UPDATE tokens SET name = $$x$$')).rejects.toThrow(/permission denied/);
    });
  });

  test('audit partitions exist for the months ahead, and an event of any other time is still stored', async () => {
    const months = await database.query(`SELECT 1 FROM pg_inherits WHERE inhparent = 'audit_events'::regclass`);
    expect(months.length).toBe(26); // this month, 24 ahead, and the default
    await database.query(insertEvent, [randomUUID(), new Date('2150-01-01')]);
    expect(await database.query('SELECT audit_make_partitions(30)')).toEqual([{ audit_make_partitions: 6 }]);
  });
});
