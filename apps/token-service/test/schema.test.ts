import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import path from 'node:path';
import { promisify } from 'node:util';
import { MIGRATIONS } from '@latchkey/contracts';
import { checkSchema, StartError } from '@latchkey/runtime';
import { type TestDatabase, testDatabase } from '@latchkey/testing';
import { VERSION } from '../src/config.js';
import { MIGRATIONS_DIR, migrate } from '../src/migrate.js';
import { asRole, migratedDatabase } from './database.js';
import { type World, world } from './harness.js';

const LATER = 'Later1999999999999';

let w: World;
beforeAll(async () => {
  w = await world();
});
afterAll(() => w.close());

const starting = (url: string) => w.another({ DATABASE_URL: url });
const readOf =
  (database: TestDatabase) =>
  async <Row>(sql: string) =>
    (await database.query(sql)) as Row[];

test('a token-service does not start on a database without its schema, and says which migration is missing and what to run', async () => {
  await using database = await testDatabase();
  const bare = starting(database.url);
  await expect(bare).rejects.toBeInstanceOf(StartError);
  await expect(bare).rejects.toThrow(
    `lacks migrations of version ${VERSION}, first ${MIGRATIONS[0]}. Migrate it as the owner of the schema: node apps/token-service/dist/migrate.js`,
  );
  // As the version before left it: no service could read what it has been migrated to.
  await migrate(database.url, {}, MIGRATIONS.slice(0, 25));
  const service = asRole(database.url, 'latchkey_service');
  await expect(starting(service)).rejects.toThrow(`first ${MIGRATIONS[25]}.`);
  await migrate(database.url);
  await (await starting(service)).stop();
});

test('a token-service starts on the schema of a later version while that says that services of this one can use it', async () => {
  await using database = await migratedDatabase();
  const service = asRole(database.url, 'latchkey_service');
  await database.query('INSERT INTO migrations (timestamp, name) VALUES (1999999999999, $1)', [LATER]);
  await (await starting(service)).stop();
  expect(w.logs()).toContain('the database was migrated to a later version, which this one can use');
  const contracted =
    "CREATE OR REPLACE FUNCTION schema_min_version() RETURNS text LANGUAGE sql AS $$ SELECT '7.1.0' $$";
  await database.query(contracted);
  await expect(starting(service)).rejects.toThrow(
    `the database was migrated to a later version (${LATER}) and can be used from version 7.1.0 on; this is ${VERSION}.`,
  );
  // A service of that version, which does not know a still later migration.
  for (const version of ['7.1.0', '7.10.0', '10.0.0'])
    expect(await checkSchema(version, readOf(database))).toEqual([LATER]);
  await expect(checkSchema('7.0.12', readOf(database))).rejects.toBeInstanceOf(StartError);
  await expect(checkSchema('7.1.0', readOf(database), [...MIGRATIONS, 'Lost1'])).rejects.toThrow('first Lost1.');
});

test('migrating with an earlier version changes nothing, and says that the database is of a later one', async () => {
  await using database = await migratedDatabase();
  await database.query('INSERT INTO migrations (timestamp, name) VALUES (1999999999999, $1)', [LATER]);
  const { stdout } = await promisify(execFile)(process.execPath, [path.join(MIGRATIONS_DIR, '../migrate.js')], {
    env: { DATABASE_URL: database.url },
  });
  const lines = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  expect(lines).toEqual([
    expect.objectContaining({ level: 'warn', migrations: [LATER], msg: expect.stringContaining('a later version') }),
    expect.objectContaining({ level: 'info', migrations: [], msg: 'nothing to migrate' }),
  ]);
});

test('a token-service does not start behind a pooler, and says so', async () => {
  await using pooler = await serverOf((client) => {
    const { hostname, port } = new URL(w.database.url);
    const server = connect(Number(port), hostname);
    client.on('close', () => server.destroy()).pipe(server);
    server.on('close', () => client.destroy()).on('error', () => client.destroy());
    // A pooler has its own keys: it tells its clients a process that PostgreSQL does not have.
    server.on('data', (data: Buffer) => {
      const key = data.indexOf(Buffer.from([0x4b, 0, 0, 0, 12]));
      if (key >= 0) data.writeInt32BE(data.readInt32BE(key + 5) + 1, key + 5);
      client.write(data);
    });
  });
  await using strict = await serverOf((client) => {
    client.once('data', () => {
      const text = Buffer.from('SFATAL\0C08P01\0Munsupported startup parameter: lock_timeout\0\0');
      const head = Buffer.from([0x45, 0, 0, 0, text.length + 4]);
      client.end(Buffer.concat([head, text]));
    });
  });
  for (const { port } of [pooler, strict]) {
    const url = new URL(asRole(w.database.url, 'latchkey_service'));
    url.host = `127.0.0.1:${port}`;
    await expect(starting(url.href)).rejects.toThrow(
      /a pooler \(PgBouncer, for one\) stands between this service and PostgreSQL/,
    );
  }
});

test('a token-service says that PostgreSQL has not enough connections for its pool, and starts', async () => {
  const [row] = await w.database.query<{ max: number }>("SELECT current_setting('max_connections')::int AS max");
  const service = await w.another({ DATABASE_POOL_SIZE: String(Math.min(500, row!.max)) });
  await service.stop();
  expect(w.logs()).toContain('PostgreSQL has too few connections');
});

async function serverOf(onClient: (client: Socket) => void) {
  const sockets: Socket[] = [];
  const server = createServer((client) => {
    sockets.push(client);
    client.on('error', () => undefined);
    onClient(client);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const close = async () => {
    for (const socket of sockets) socket.destroy();
    server.close();
  };
  return { port, [Symbol.asyncDispose]: close };
}
