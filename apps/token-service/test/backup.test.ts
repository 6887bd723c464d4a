import { generateKeyPairSync } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { type BackupOptions, backup, LEFT_OUT, readContents, restore } from '@latchkey/backup';
import type { MaintenanceMethods } from '@latchkey/contracts';
import { type Caller, firstParty, maintenanceCaller, tokensCaller } from '@latchkey/runtime';
import { type TestDatabase, type TestRedis, testDatabase, testRedis, waitFor } from '@latchkey/testing';
import { Secret, TOTP } from 'otpauth';
import { migrate } from '../src/migrate.js';
import { asRole } from './database.js';
import { GATEWAY_RPC_SECRET, issue, JOBS_RPC_SECRET, type Person, project, type World, world } from './harness.js';
import { newClaim } from './invalidation/harness.js';

const PASSPHRASE = 'six random words make a passphrase';
const PASSWORD = 'correct horse battery staple';
const AUDIT_SIGNING_KEY = generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();

let dir: string;
let w: World;
let admin: Person;
let maintenance: Caller<MaintenanceMethods>;
let redis: TestRedis;

beforeAll(async () => {
  dir = mkdtempSync(path.join(tmpdir(), 'latchkey-backup-'));
  const ledger = { LEDGER_DIR: path.join(dir, 'ledger'), LEDGER_KEY: 'ledger-key-for-tests-0123456789abcdef' };
  w = await world({ env: { AUDIT_SIGNING_KEY, ...ledger } });
  admin = await w.signIn();
  redis = await testRedis();
  maintenance = maintenanceCaller({
    address: w.service.rpcAddress,
    authorization: firstParty(JOBS_RPC_SECRET),
    timeoutMs: 10_000,
  });
});
afterAll(async () => {
  maintenance.close();
  await w.close();
  await redis.close();
  rmSync(dir, { recursive: true });
});

let files = 0;
const take = (options: Partial<BackupOptions> = {}) =>
  backup({
    databaseUrl: w.database.url,
    secrets: { TOKEN_PEPPERS: w.env['TOKEN_PEPPERS']!, ADMIN_PASSWORD: 'a password of someone' },
    files: { 'gateway.yaml': Buffer.from('routes: []\n') },
    file: path.join(dir, `${++files}.age`),
    lock: { passphrase: PASSPHRASE },
    workFactor: 10,
    ...options,
  });

async function restored<T>(file: string, use: (database: TestDatabase) => Promise<T>): Promise<T> {
  await using database = await testDatabase();
  await into(database, file);
  return await use(database);
}

const into = (database: TestDatabase, file: string) =>
  restore({
    file,
    unlock: { passphrase: PASSPHRASE },
    target: async () => ({
      databaseUrl: database.url,
      migrate: async (only) => void (await migrate(database.url, {}, only)),
    }),
  });

/** Tables to which a running token-service writes by itself. */
const REWRITTEN = ['peppers', 'ledger_streams'];

/** Every row of every other table that a backup has, in one order. */
async function rowsOf(database: TestDatabase): Promise<Record<string, string[]>> {
  const tables = await database.query<{ name: string }>(
    `SELECT relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
     AND NOT relispartition AND relname <> ALL ($1)`,
    [[...Object.keys(LEFT_OUT), ...REWRITTEN]],
  );
  const rows = tables.map(async ({ name }) => {
    const found = await database.query<{ row: string }>(`SELECT t::text AS row FROM ${name} t ORDER BY 1`);
    return [name, found.map(({ row }) => row)] as const;
  });
  return Object.fromEntries(await Promise.all(rows));
}

const seal = () =>
  waitFor(async () => {
    await maintenance.sealAudit({ limit: 500 });
    const [row] = await w.database.query(
      'SELECT count(*)::int AS waiting FROM audit_events e WHERE NOT EXISTS (SELECT FROM audit_links l WHERE l.event_id = e.id)',
    );
    return row!['waiting'] === 0;
  });

/** Takes a lease as a gateway does. */
async function renew(address: string) {
  const caller = tokensCaller({ address, authorization: firstParty(GATEWAY_RPC_SECRET), timeoutMs: 10_000 });
  const claim = newClaim();
  try {
    const lease = await caller.renew({ verifierId: '', name: 'gateway', cursor: null, claim, version: '0.2.0' });
    await caller.release({ verifierId: lease.verifierId, claim });
    return lease;
  } finally {
    caller.close();
  }
}

test('a restored database has every row; its tokens, second factors and audit chain are valid, its sessions are not', async () => {
  const person = await w.member('Ada');
  const started = await person.call<{ secret: string }>('POST /v1/session/totp', { body: { password: PASSWORD } });
  const totp = new TOTP({ secret: Secret.fromBase32(started.body.secret) });
  const code = totp.generate({ timestamp: Date.now() - 30_000 });
  expect((await person.call('POST /v1/session/totp/confirm', { body: { code } })).status).toBe(200);
  const projectId = await project(admin);
  await admin.call(`PUT /v1/projects/${projectId}/members/${person.user.id}`, { body: { role: 'editor' } });
  const token = await issue(admin, { expiresInSeconds: 3_600, description: 'tab\tline\nbackslash \\ ü 🔑 \\.' });
  const rotated = await issue(admin);
  await admin.call(`POST /v1/tokens/${rotated.id}/rotate`, { body: {} });
  const revoked = await issue(admin);
  await admin.call(`DELETE /v1/tokens/${revoked.id}`);
  const soon = await issue(admin, { expiresInSeconds: 120 });
  await w.database.query(
    `CREATE TABLE audit_events_2025_02 PARTITION OF audit_events FOR VALUES FROM ('2025-02-01Z') TO ('2025-03-01Z')`,
  );
  await w.database.query(
    `INSERT INTO audit_events (id, at, actor_type, actor_name, action)
     VALUES (gen_random_uuid(), '2025-02-11Z', 'system', 'test', 'session.started'),
       (gen_random_uuid(), '2024-07-11Z', 'system', 'test', 'session.started')`,
  );
  await seal();
  const lease = await renew(w.service.rpcAddress);
  const before = await rowsOf(w.database);
  const { file, manifest, digests } = await take();
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(existsSync(`${file}.partial`)).toBe(false);
  expect(JSON.stringify(manifest)).not.toContain(w.env['TOKEN_PEPPERS']);
  expect(manifest.secrets).toEqual([
    { name: 'ADMIN_PASSWORD', fingerprint: null },
    { name: 'TOKEN_PEPPERS', fingerprint: expect.stringMatching(/^[0-9a-f]{16}$/) },
  ]);
  expect(digests.tables['tokens']!.rows).toBe(before['tokens']!.length);

  await using database = await testDatabase();
  const result = await into(database, file);
  expect(await rowsOf(database)).toEqual(before);
  for (const table of ['sessions', 'password_resets', 'leases'])
    expect(await database.query(`SELECT FROM ${table}`)).toEqual([]);
  expect(result).toMatchObject({
    chain: { ok: true, firstBroken: null },
    secrets: { ADMIN_PASSWORD: expect.anything() },
  });
  expect(result.files['gateway.yaml']!.toString()).toBe('routes: []\n');
  const places = await database.query(
    `SELECT tableoid::regclass::text AS name FROM audit_events WHERE actor_name = 'test' ORDER BY at`,
  );
  expect(places).toEqual([{ name: 'audit_events_default' }, { name: 'audit_events_2025_02' }]);
  await expect(database.query('TRUNCATE audit_events_2025_02')).rejects.toThrow(/append-only/);
  await expect(database.query('DELETE FROM audit_events')).rejects.toThrow(/append-only/);
  expect((await database.query('SELECT token_id FROM expiry_soon')).map((row) => row['token_id'])).toContain(soon.id);

  const service = await w.another({
    DATABASE_URL: asRole(database.url, 'latchkey_service'),
    REDIS_URL: redis.url,
    TOKEN_PEPPERS: result.secrets['TOKEN_PEPPERS']!,
  });
  const anyone = w.as({}, service);
  expect((await w.bearer(token.secret, service).call('/v1/tokens/self')).status).toBe(200);
  expect((await w.bearer(revoked.secret, service).call('/v1/tokens/self')).status).toBe(401);
  const signIn = (more: object) =>
    anyone.call('POST /v1/session', { body: { email: person.user.email, password: PASSWORD, ...more } });
  expect((await signIn({})).body).toMatchObject({ code: 'second_factor_required' });
  expect((await signIn({ code: totp.generate() })).status).toBe(200);
  // As after a restore by any other tool: verifiers empty their memory, and confirmations wait for leases out there.
  const later = await renew(service.rpcAddress);
  expect(later.cursor!.log).not.toBe(lease.cursor!.log);
  expect(await database.query(`SELECT FROM leases WHERE caller = 'nobody'`)).toHaveLength(1);
});

test('a backup taken during writes has an audit event of each of its tokens, and a token of each event', async () => {
  let stop = false;
  const writing = [1, 2, 3].map(async () => {
    while (!stop) await issue(admin);
  });
  const { file } = await take().finally(() => {
    stop = true;
  });
  await Promise.all(writing);
  await restored(file, async (database) => {
    const differing = await database.query(
      `SELECT t.id AS token, e.token_id AS event FROM tokens t
       FULL JOIN (SELECT token_id FROM audit_events WHERE action = 'token.issued') e ON e.token_id = t.id
       WHERE t.id IS NULL OR e.token_id IS NULL`,
    );
    expect(differing).toEqual([]);
    expect((await database.query('SELECT FROM tokens')).length).toBeGreaterThan(3);
    expect((await database.query('SELECT FROM tokens')).length).toBeLessThan(
      (await w.database.query('SELECT FROM tokens')).length,
    );
  });
});

test('a backup that runs delays neither a change nor the confirmation of a revocation', async () => {
  const token = await issue(admin);
  let during: Promise<number> | undefined;
  await take({
    progress: (line) => {
      if (line !== 'reading audit_events') return;
      during = admin.call(`DELETE /v1/tokens/${token.id}`).then(({ status }) => status);
    },
  });
  expect(await during).toBe(200);
});

describe('a backup of an older schema', () => {
  test('is restored, and then migrated to the newest', async () => {
    await using old = await testDatabase();
    const all = await migrate(old.url);
    await using older = await testDatabase();
    await migrate(older.url, {}, all.slice(0, -1));
    await older.query(
      `INSERT INTO users (id, email, name, role, created_at) VALUES (gen_random_uuid(), 'a@b.example', 'A', 'member', now())`,
    );
    const { file } = await take({ databaseUrl: older.url });
    await restored(file, async (database) => {
      const done = await database.query('SELECT name FROM migrations ORDER BY id');
      expect(done.map(({ name }) => name)).toEqual(all);
      expect(await database.query('SELECT email FROM users')).toEqual([{ email: 'a@b.example' }]);
    });
  });

  test('with a migration that this version does not have is refused by its name', async () => {
    await using newer = await testDatabase();
    await migrate(newer.url);
    await newer.query(`INSERT INTO migrations (timestamp, name) VALUES (9999999999999, 'Later9999999999999')`);
    const { file } = await take({ databaseUrl: newer.url });
    await using database = await testDatabase();
    await expect(into(database, file)).rejects.toThrow(/no migration Later9999999999999/);
  });
});

test('a database that is not empty is refused, and stays as it is', async () => {
  const { file } = await take();
  await using database = await testDatabase();
  await database.query('CREATE TABLE mine (a integer)');
  await expect(into(database, file)).rejects.toThrow(/is not empty: it has the table mine/);
  expect(await database.query(`SELECT relname FROM pg_class WHERE relname IN ('mine', 'users')`)).toEqual([
    { relname: 'mine' },
  ]);
});

test('a flipped byte anywhere is refused before the database is touched, and the message names the entry', async () => {
  const { file } = await take();
  const whole = readFileSync(file);
  const messages: string[] = [];
  for (const at of [0, 60, 400, 70_000, whole.length - 100].filter((place) => place < whole.length)) {
    const flipped = Buffer.from(whole);
    flipped[at]! ^= 1;
    writeFileSync(file, flipped);
    const error = await readContents(file, { passphrase: PASSPHRASE }).then(
      () => null,
      (e: Error) => e,
    );
    expect(error?.name).toBe('BackupError');
    messages.push(error!.message);
  }
  expect(messages.at(-1)).toMatch(
    /damaged (?:before its first entry|in or behind its entry (?:tables|secrets|files)\/\S+)/,
  );
  await using database = await testDatabase();
  await expect(into(database, file)).rejects.toThrow(/damaged/);
  expect(await database.query(`SELECT FROM pg_class WHERE relname = 'users'`)).toEqual([]);
});
