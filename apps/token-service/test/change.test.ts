import { setTimeout } from 'node:timers/promises';
import { createLogger, systemClock } from '@latchkey/runtime';
import { type TestDatabase, waitFor } from '@latchkey/testing';
import { DataSource } from 'typeorm';
import { Authority } from '../src/database/authority.js';
import { Database, dataSourceOptions, isDatabaseUnavailable } from '../src/database/database.service.js';
import { PreparedClient } from '../src/database/prepared-client.js';
import type { Statement } from '../src/database/statement.js';
import { migratedDatabase } from './database.js';

let testing: TestDatabase;
let database: Database;
beforeAll(async () => {
  testing = await migratedDatabase();
  await testing.query('CREATE TABLE counts (id int PRIMARY KEY, n int NOT NULL); INSERT INTO counts VALUES (1, 0)');
  const config = { DATABASE_URL: testing.url, DATABASE_POOL_SIZE: 4, LEASE_MS: 1_000 } as never;
  database = new Database(
    await new DataSource(dataSourceOptions(config)).initialize(),
    config,
    systemClock,
    createLogger('test', 'fatal'),
  );
});
afterAll(async () => {
  await database.onApplicationShutdown();
  await database.source.destroy();
  await testing.close();
});

test('a read after waiting for a lock returns what its holder committed', async () => {
  const { promise: committing, resolve: commit } = Promise.withResolvers<void>();
  const { promise: locked, resolve: onLocked } = Promise.withResolvers<void>();
  const holder = database.change(async (change) => {
    await change.read(['UPDATE counts SET n = 7 WHERE id = $1', [1]]);
    onLocked();
    await committing;
  });
  await locked;
  const reader = database.change((change) =>
    change.readAll([
      ['SELECT 1 FROM counts WHERE id = $1 FOR SHARE', [1]],
      ['SELECT n FROM counts WHERE id = $1', [1]],
    ]),
  );
  const waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
  await waitFor(async () => (await testing.query(waiting)).length > 0);
  commit();
  await holder;
  expect((await reader)[1]).toEqual([{ n: 7 }]);
});

test('a snapshot reads everything as of one moment, and allows no write', async () => {
  const count = 'SELECT count(*)::int AS n FROM counts WHERE id = 30';
  const seen = await database.snapshot(async (snapshot) => {
    const before = await snapshot.read([count]);
    await testing.query('INSERT INTO counts VALUES (30, 1)');
    return [before, await snapshot.read([count])];
  });
  expect(seen).toEqual([[{ n: 0 }], [{ n: 0 }]]);
  await expect(database.snapshot((snapshot) => snapshot.read(['DELETE FROM counts']))).rejects.toMatchObject({
    code: '25006',
  });
  expect(await database.query(count)).toEqual([{ n: 1 }]);
  await testing.query('DELETE FROM counts WHERE id = 30');
});

test('statements sent together are all rolled back when one of them fails', async () => {
  const failing = database.change((change) =>
    change.readAll([
      ['INSERT INTO counts VALUES ($1, 1)', [2]],
      ['INSERT INTO counts VALUES ($1, 1)', [1]],
      ['INSERT INTO counts VALUES ($1, 1)', [3]],
    ]),
  );
  await expect(failing).rejects.toMatchObject({ code: '23505' });
  expect(await testing.query('SELECT id FROM counts ORDER BY id')).toEqual([{ id: 1 }]);
});

test('queued writes are sent in order with the next read, and the rest with the commit', async () => {
  const seen: unknown[] = [];
  const note = { take: (written: unknown[], read: unknown[]) => seen.push({ written, read }) };
  const statement: Statement = ['SELECT count(*)::int AS n FROM counts WHERE id >= 10', []];
  const found = await database.change(async (change) => {
    change.write(['INSERT INTO counts VALUES ($1, 1) RETURNING id', [10], { ...note, statement }]);
    const rows = await change.read(['SELECT id FROM counts WHERE id >= 10']);
    change.write(['INSERT INTO counts VALUES ($1, 1) RETURNING id', [11], note]);
    expect(seen).toEqual([]);
    return rows;
  });
  expect(found).toEqual([{ id: 10 }]);
  expect(seen).toEqual([
    { written: [{ id: 10 }], read: [{ n: 2 }] },
    { written: [{ id: 11 }], read: [] },
  ]);
  await testing.query('DELETE FROM counts WHERE id >= 10');
});

test('the first statement of a change is not executed when BEGIN fails', async () => {
  const failing = database.change(async (change) => {
    const { query } = PreparedClient.prototype;
    PreparedClient.prototype.query = function (text: unknown, ...rest: unknown[]) {
      const isBegin = typeof text === 'string' && text.startsWith('BEGIN');
      return query.call(this, isBegin ? 'SELECT 1/0' : text, ...rest);
    };
    try {
      await change.read(['INSERT INTO counts VALUES ($1, 1) RETURNING id', [14]]);
    } finally {
      PreparedClient.prototype.query = query;
    }
  });
  await expect(failing).rejects.toMatchObject({ code: '22012' });
  expect(await testing.query('SELECT id FROM counts WHERE id = 14')).toEqual([]);
});

test('a failed change reports no commit and stores nothing, not even what it wrote before it read', async () => {
  const take = () => {
    throw new Error('a commit was reported for a failed change');
  };
  const failing = database.change(async (change) => {
    change.write(['INSERT INTO counts VALUES ($1, 1)', [12], { take }]);
    await change.read(['SELECT 1 FROM counts']);
    throw new Error('refused');
  });
  await expect(failing).rejects.toThrow('refused');
  const failingLate = database.change(async (change) => {
    await change.read(['SELECT 1 FROM counts']);
    change.write(['INSERT INTO counts VALUES ($1, 1)', [13], { take }], ['INSERT INTO counts VALUES ($1, 1)', [1]]);
  });
  await expect(failingLate).rejects.toMatchObject({ code: '23505' });
  expect(await testing.query('SELECT id FROM counts ORDER BY id')).toEqual([{ id: 1 }]);
});

test('a connection lost in a transaction is not used again', async () => {
  const failing = database.change(async (change) => {
    await change.read(['INSERT INTO counts VALUES ($1, 1)', [4]]);
    await change.read(['SELECT pg_terminate_backend(pg_backend_pid())']);
  });
  await expect(failing).rejects.toThrow();
  for (let i = 0; i < 8; i++) expect(await database.query('SELECT 1 AS one')).toEqual([{ one: 1 }]);
  expect(await testing.query('SELECT 1 FROM counts WHERE id = 4')).toEqual([]);
});

test('a connection that PostgreSQL closes while it is borrowed and idle fails its next query, and the service continues', async () => {
  let next: Promise<unknown> | undefined;
  await database
    .onOneConnection(async (here) => {
      const [{ pid }] = (await here.prepared<{ pid: number }>('pid', 'SELECT pg_backend_pid() AS pid', [])) as [
        { pid: number },
      ];
      await testing.query('SELECT pg_terminate_backend($1)', [pid]);
      const gone = 'SELECT 1 FROM pg_stat_activity WHERE pid = $1';
      await waitFor(async () => (await testing.query(gone, [pid])).length === 0);
      await setTimeout(50); // the close is read while no query runs
      next = here.prepared('one', 'SELECT 1 AS one', []);
      await next;
    })
    .catch(() => undefined);
  expect(isDatabaseUnavailable(await next!.catch((error: unknown) => error))).toBe(true);
  for (let i = 0; i < 8; i++) expect(await database.query('SELECT 1 AS one')).toEqual([{ one: 1 }]);
});

test('behind a pooler, where each statement can reach another server, authority is not proven', async () => {
  const runner = database.source.createQueryRunner();
  const connection = (await runner.connect()) as PreparedClient;
  const authority = new Authority(systemClock, 1_000);
  const { processID } = connection;
  try {
    await authority.prove(connection);
    Object.assign(connection, { processID: processID + 1 }); // as a pooler reports it to its clients
    await expect(authority.prove(connection)).rejects.toThrow('a pooler stands between this service and PostgreSQL');
    expect(authority.holds(connection)).toBe(false);
  } finally {
    Object.assign(connection, { processID });
    await runner.release();
  }
});

test('where the server commits without waiting for the disk, authority is not proven', async () => {
  const runner = database.source.createQueryRunner();
  const connection = (await runner.connect()) as PreparedClient;
  const authority = new Authority(systemClock, 1_000);
  try {
    await connection.query('SET synchronous_commit = off');
    await expect(authority.prove(connection)).rejects.toThrow('synchronous_commit = off');
    expect(authority.holds(connection)).toBe(false);
  } finally {
    await connection.query('SET synchronous_commit = on');
    await runner.release();
  }
});
