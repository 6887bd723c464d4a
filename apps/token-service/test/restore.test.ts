import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Restore } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { type OwnServer, waitFor } from '@latchkey/testing';
import { Client } from 'pg';
import { LedgerFolder, ledgerKey } from '../src/ledger/index.js';
import { asRole } from './database.js';
import { ADMIN_EMAIL, ADMIN_PASSWORD, issue } from './harness.js';
import {
  backUp,
  before,
  checkOf,
  closing,
  eventsOf,
  isBack,
  isMarked,
  LEDGER_KEY,
  metricsOf,
  mustHaveLostNothing,
  NEW_PASSWORD,
  narrow,
  newFolder,
  putBack,
  REVOKED,
  setUp,
  systemOf,
} from './restoring.js';

describe('with its ledger at hand', () => {
  it('a data folder put back while the service runs revives nothing: what it lost is applied again before a token is answered', async () => {
    const stage = await setUp();
    const { server, w } = stage;
    const was = await before(stage);
    const copy = await backUp(stage, was);
    await narrow(stage, was);
    await putBack(server, copy);
    await isBack(w, was.kept.secret);
    const admin = await mustHaveLostNothing(w, was);
    const { restore, ledger } = await systemOf(admin);
    expect(ledger).toEqual({ state: 'written', reason: null });
    expect(restore).toMatchObject({
      state: 'settled',
      choice: 'ledger',
      reason: null,
      mustSetPassword: 1,
    } satisfies Partial<Restore>);
    expect(restore!.reapplied).toBeGreaterThanOrEqual(REVOKED + 5);
    expect(await eventsOf(admin, 'system.restored')).toHaveLength(1);
    expect((await eventsOf(admin, 'token.revoked')).length).toBeGreaterThanOrEqual(REVOKED);
    expect((await admin.call<{ ok: boolean }>('GET /v1/audit/verify')).body.ok).toBe(true);
    expect(w.logs()).toContain('the database was put back to an earlier state');
  });

  it('a data folder put back while the service is stopped revives nothing', async () => {
    const stage = await setUp();
    const { server, w } = stage;
    const was = await before(stage);
    const copy = await backUp(stage, was);
    await narrow(stage, was);
    await w.service.stop();
    await putBack(server, copy);
    const second = await w.another();
    await mustHaveLostNothing(w, was, second);
  });

  it('a database dropped and restored from a dump revives nothing', async () => {
    const stage = await setUp();
    const { server, w } = stage;
    const was = await before(stage);
    await isMarked(stage);
    const maintenance = await maintenanceClient(server);
    const dump = () => maintenance.query(`CREATE DATABASE dump TEMPLATE latchkey STRATEGY file_copy`);
    await disconnect(maintenance);
    await waitFor(() =>
      dump().then(
        () => true,
        () => disconnect(maintenance).then(() => false),
      ),
    );
    await isBack(w, was.kept.secret);
    await narrow(stage, was);
    await w.service.stop();
    await maintenance.query('DROP DATABASE latchkey WITH (FORCE)');
    await maintenance.query('ALTER DATABASE dump RENAME TO latchkey');
    const second = await w.another();
    await mustHaveLostNothing(w, was, second);
  });

  it('restarts of the service and of PostgreSQL settle by themselves: no token is refused, no session ends, and nothing is recorded', async () => {
    const stage = await setUp();
    const { server, w, admin } = stage;
    const { secret, id } = await issue(admin);
    const other = await issue(admin);
    await admin.call(`POST /v1/tokens/${other.id}/revoke`, { body: {} });
    await server.stop();
    await server.start();
    await isBack(w, secret);
    expect(await checkOf(w, secret)).toBe(200);
    await w.service.stop();
    await server.stop();
    await server.start();
    const second = await w.another();
    expect(await checkOf(w, secret, second)).toBe(200);
    const again = w.as({ cookie: admin.cookie! }, second);
    expect((await systemOf(again)).restore).toBeNull();
    const revoked = await again.call<{ effective: boolean; receipt: { ledger: string } }>(
      `POST /v1/tokens/${id}/revoke`,
      { body: {} },
    );
    expect(revoked.body).toMatchObject({ effective: true, receipt: { ledger: 'written' } });
    expect(await checkOf(w, secret, second)).toBe(401);
  });

  it('a standby that was promoted settles by itself, and a change that it never received is applied again', async () => {
    const stage = await setUp();
    const { server, w, admin } = stage;
    const standby = await server.standBy();
    const good = await waitFor(() => issue(admin).catch(() => null));
    const lost = await issue(admin);
    // From here on the standby receives nothing, and commits do not wait for it.
    await server.query('ALTER SYSTEM RESET synchronous_standby_names');
    await server.query(`SELECT pg_reload_conf()`);
    await server.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_replication`);
    const blocked = new Client({ connectionString: standby.url });
    await blocked.connect();
    await blocked.query(`ALTER SYSTEM SET primary_conninfo = ''`);
    await blocked.query('SELECT pg_reload_conf()');
    await waitFor(async () => (await server.query('SELECT 1 FROM pg_stat_replication')).length === 0);
    await blocked.end();
    const revoked = await admin.call(`POST /v1/tokens/${lost.id}/revoke`, { body: {} });
    expect(revoked.status).toBe(200);
    await w.service.stop();
    await server.stop();
    await standby.promote();
    const second = await w.another({ DATABASE_URL: asRole(standby.url, 'latchkey_service') });
    await isBack(w, good.secret, second);
    expect(await checkOf(w, good.secret, second)).toBe(200);
    expect(await checkOf(w, lost.secret, second)).toBe(401);
  });
});

const maintenanceClient = async (server: OwnServer): Promise<Client> => {
  const url = new URL(server.url);
  url.pathname = '/postgres';
  const client = new Client({ connectionString: url.href });
  client.on('error', () => undefined);
  await client.connect();
  closing.push(() => client.end());
  return client;
};

const disconnect = (client: Client) =>
  client.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'latchkey'`);

describe('a ledger that cannot be written', () => {
  it('stops no revocation: the receipt, the state, readiness and the log say so, and what was missed is written once it can be', async () => {
    const folder = newFolder();
    const blocked = path.join(folder, 'blocked');
    writeFileSync(blocked, 'a file where the folder should be');
    const stage = await setUp({ LEDGER_DIR: path.join(blocked, 'ledger') });
    const { w, admin } = stage;
    const ready = async () =>
      (await (await fetch(`${w.service.opsUrl}/readyz`)).json()) as {
        status: string;
        warnings?: Record<string, string>;
      };
    const [missed, later] = [await issue(admin), await issue(admin)];
    const revoke = async (id: string) =>
      (
        await admin.call<{ effective: boolean; receipt: { ledger: string } }>(`POST /v1/tokens/${id}/revoke`, {
          body: {},
        })
      ).body;
    expect(await revoke(missed.id)).toMatchObject({ effective: true, receipt: { ledger: 'failed' } });
    expect(await checkOf(w, missed.secret)).toBe(401);
    expect((await systemOf(admin)).ledger).toEqual({ state: 'failed', reason: expect.stringContaining('ENOTDIR') });
    expect(await ready()).toMatchObject({ status: 'ready', warnings: { ledger: expect.stringContaining('ENOTDIR') } });
    expect(w.logs()).toContain('writing the ledger failed');
    rmSync(blocked);
    await waitFor(async () => (await systemOf(admin)).ledger.state === 'written');
    expect(await revoke(later.id)).toMatchObject({ effective: true, receipt: { ledger: 'written' } });
    expect(await ready()).not.toHaveProperty('warnings');
    const written = readLedger(path.join(blocked, 'ledger'));
    for (const { id } of [missed, later]) expect(written).toContain(id);
    for (const { secret } of [missed, later]) expect(written).not.toContain(secret);
  });
});

/** All files of all ledgers. */
const readLedger = (dir: string): string =>
  readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((one) => one.isFile())
    .map((one) => readFileSync(path.join(one.parentPath, one.name), 'utf8'))
    .join('\n');

/** The other ledgers that were alive when the process of a ledger was last. */
function peersOf(dir: string): string[] {
  const states = readLedger(dir)
    .split('\n')
    .flatMap((line) => /^\S+ (\{.*"settledAt":.*)$/.exec(line)?.[1] ?? [])
    .map((json) => JSON.parse(json) as { settledAt: string | null; peers: string[] })
    .sort((a, b) => (a.settledAt ?? '').localeCompare(b.settledAt ?? ''));
  return states.at(-1)!.peers;
}

describe('several ledgers', () => {
  it('each replica has in its ledger what the others did, so that one alone brings all of it back', async () => {
    const stage = await setUp();
    const { server, w } = stage;
    const was = await before(stage);
    const otherLedger = newFolder();
    const other = await w.another({ LEDGER_DIR: otherLedger });
    await waitFor(async () => (await server.query('SELECT DISTINCT ledger FROM ledger_streams')).length === 2);
    const copy = await backUp(stage, was);
    await isBack(w, was.kept.secret, other);
    const passwords = () =>
      readLedger(otherLedger)
        .split('\n')
        .filter((line) => line.includes(was.changer.user.id) && line.includes('"credential"')).length;
    const earlier = passwords();
    await narrow(stage, was);
    // The replica that did it all is gone with its ledger; the other follows within a second, to the last change.
    await waitFor(() => passwords() > earlier);
    await w.service.stop();
    // And it has heard that the first one has ended.
    await waitFor(() => peersOf(otherLedger).length === 0);
    await putBack(server, copy);
    await isBack(w, was.kept.secret, other);
    await mustHaveLostNothing(w, was, other);
  });

  it('an imported copy brings back what it knows; whether it was complete is for an administrator to say, or for the import', async () => {
    const stage = await setUp();
    const { server, w, ledger } = stage;
    const was = await before(stage);
    const copy = await backUp(stage, was);
    await narrow(stage, was);
    await w.service.stop();
    await putBack(server, copy);
    const exported = path.join(newFolder(), 'exported');
    expect(command(ledger, 'export', exported)).toMatchObject({ status: 0 });
    const newPlace = newFolder();
    expect(command(newPlace, 'import', exported, '--complete')).toMatchObject({ status: 0 });
    expect(command(newPlace, 'verify')).toMatchObject({
      status: 0,
      stdout: expect.stringMatching(/[1-9]\d* entries in 1 streams/),
    });
    const second = await w.another({ LEDGER_DIR: newPlace });
    await isBack(w, was.kept.secret, second);
    await mustHaveLostNothing(w, was, second);
    // Once it was used, it is no better than any other: a later restore is not vouched for by it.
    expect(readLedger(newPlace)).not.toContain('"isComplete":true');
  });
});

/** Runs `latchkey ledger`. */
const command = (dir: string, ...args: string[]) =>
  spawnSync(process.execPath, [path.join(import.meta.dirname, '../dist/ledger-command.js'), ...args], {
    env: { PATH: process.env['PATH'], LEDGER_DIR: dir, LEDGER_KEY },
    encoding: 'utf8',
  });

it('the only administrator, who changed the password after the backup, gets in again by a code from the command on the server', async () => {
  const stage = await setUp();
  const { server, w, admin } = stage;
  const was = await before(stage);
  const copy = await backUp(stage, was);
  const body = { currentPassword: ADMIN_PASSWORD, newPassword: NEW_PASSWORD };
  expect((await admin.call('POST /v1/session/password', { body })).status).toBeLessThan(300);
  await w.service.stop();
  await putBack(server, copy);
  const second = await w.another();
  const signIn = async (password: string) =>
    (await w.as({}, second).call('POST /v1/session', { body: { email: ADMIN_EMAIL, password } })).status;
  await waitFor(async () => (await signIn(ADMIN_PASSWORD)) === 401);
  expect(await signIn(NEW_PASSWORD)).toBe(401);
  const reset = (...args: string[]) =>
    spawnSync(process.execPath, [path.join(import.meta.dirname, '../dist/admin-reset.js'), ...args], {
      env: { PATH: process.env['PATH'], DATABASE_URL: w.env['DATABASE_URL'] },
      encoding: 'utf8',
    });
  expect(reset('nobody@example.org')).toMatchObject({
    status: 1,
    stderr: expect.stringContaining('no enabled administrator'),
  });
  const [, code] = /^code: (\w+)$/m.exec(reset(ADMIN_EMAIL).stdout)!;
  const chosen = { email: ADMIN_EMAIL, code, newPassword: 'a third password, long enough' };
  expect((await w.as({}, second).call('POST /v1/session/reset-password', { body: chosen })).status).toBeLessThan(300);
  expect(await signIn(chosen.newPassword)).toBe(200);
});

describe('the ledger command', () => {
  it('says what is wrong, where, and what to do', () => {
    const empty = newFolder();
    expect(command(empty, 'verify')).toMatchObject({ status: 1, stderr: `ledger: ${empty} contains no ledger\n` });
    expect(command(empty, 'import')).toMatchObject({ status: 1, stderr: expect.stringContaining('takes one folder') });
    expect(command(empty, 'frobnicate')).toMatchObject({ status: 1, stderr: expect.stringContaining('see --help') });
    expect(command(empty, '--help')).toMatchObject({ status: 0, stdout: expect.stringContaining('ledger verify') });
    const folder = path.join(empty, 'one');
    const stream = LedgerFolder.open(folder, Buffer.from(ledgerKey(LEDGER_KEY)), newId).begin(newId());
    stream.append([{ e: newId(), t: 1, a: 'token.revoked' }]);
    expect(command(empty, 'verify')).toMatchObject({
      status: 1,
      stderr: expect.stringContaining(`${stream.stream}.state is missing`),
    });
  });
});

it('a backup restored into the live database is answered by none of the connections that live on', async () => {
  const { server, w, admin } = await setUp({ LEASE_MS: '10000' });
  const token = await issue(admin);
  const other = await w.signIn();
  await isMarked({ server });
  const tables = ['tokens', 'sessions', 'invalidation_log', 'ledger_streams'];
  await server.query('CREATE SCHEMA backup');
  for (const table of tables) await server.query(`CREATE TABLE backup.${table} AS SELECT * FROM ${table}`);
  const [then] = await server.query('SELECT now()::text AS at');
  await admin.call(`POST /v1/tokens/${token.id}/revoke`, { body: {} });
  expect((await other.call('DELETE /v1/session')).status).toBe(204);
  await w.as().call('GET /v1/session'); // sessions are in the ledger within a second
  await waitFor(async () =>
    /latchkey_ledger_entries_total\{outcome="written",service="token-service"\} [2-9]/.test(await metricsOf(w)),
  );
  const seen = new Set<number>();
  let isDone = false;
  const ask = async (status: () => Promise<number>) => {
    while (!isDone) seen.add(await status());
  };
  const asking = [
    ask(() => checkOf(w, token.secret)),
    ask(() => checkOf(w, token.secret)),
    ask(async () => (await other.call('GET /v1/session')).status),
    ask(async () => (await other.call('GET /v1/session')).status),
  ];
  // What pg_restore --clean --single-transaction comes to: rows of then, a new file of the log, one commit.
  await server.query(`BEGIN; SET LOCAL session_replication_role = replica;
    UPDATE tokens t SET revoked_at = b.revoked_at, revocation_reason = b.revocation_reason FROM backup.tokens b WHERE b.id = t.id;
    INSERT INTO sessions SELECT * FROM backup.sessions ON CONFLICT DO NOTHING;
    DELETE FROM audit_events WHERE at > '${String(then!['at'])}'; DELETE FROM invalidations WHERE created_at > '${String(then!['at'])}';
    DELETE FROM ledger_streams; INSERT INTO ledger_streams SELECT * FROM backup.ledger_streams;
    TRUNCATE invalidation_log; INSERT INTO invalidation_log SELECT * FROM backup.invalidation_log; COMMIT`);
  await waitFor(async () => (await server.query('SELECT 1 FROM restores WHERE settled_at IS NOT NULL')).length > 0, {
    timeoutMs: 20_000,
  });
  await waitFor(async () => (await checkOf(w, token.secret)) === 401);
  isDone = true;
  await Promise.all(asking);
  expect([...seen].sort()).toEqual([401, 503]);
});
