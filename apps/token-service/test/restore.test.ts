import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { AuditEvent, Restore, SystemState } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { type OwnServer, ownServer, waitFor } from '@latchkey/testing';
import { Client } from 'pg';
import { LedgerFolder, ledgerKey } from '../src/ledger/index.js';
import { migrate } from '../src/migrate.js';
import { asRole } from './database.js';
import { ADMIN_EMAIL, ADMIN_PASSWORD, issue, type Person, project, type World, world } from './harness.js';

const LEASE_MS = '1500';
const LEDGER_KEY = 'ledger-key-for-tests-0123456789abcdef';
const REVOKED = 8;

/** Stopped: the server of each test starts as a copy of it. */
let migrated: OwnServer;
beforeAll(async () => {
  migrated = await ownServer(async (url) => void (await migrate(url)));
  await migrated.stop();
});
afterAll(() => migrated.close());

/** What a test has opened; closed at its end. */
const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

function newFolder(): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'latchkey-ledger-'));
  closing.push(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

interface Stage {
  server: OwnServer;
  w: World;
  admin: Person;
  ledger: string;
}

async function setUp(env: Record<string, string> = {}): Promise<Stage> {
  const server = await ownServer(migrated);
  closing.push(() => server.close());
  const ledger = newFolder();
  const w = await world({
    env: { DATABASE_URL: asRole(server.url, 'latchkey_service'), LEASE_MS, LEDGER_DIR: ledger, LEDGER_KEY, ...env },
  });
  closing.push(() => w.close());
  return { server, w, admin: await w.signIn(), ledger };
}

const NEW_PASSWORD = 'a password of after the backup';

/** What is there when the backup is made. */
async function before({ w, admin }: Pick<Stage, 'w' | 'admin'>) {
  const tokens = await Promise.all(Array.from({ length: REVOKED }, (_, i) => issue(admin, { name: `t${i}` })));
  const kept = await issue(admin, { name: 'kept' });
  const narrowed = await issue(admin, { name: 'narrowed', scopes: ['demo:read', 'demo:write'] });
  const disabled = await issue(admin, { name: 'disabled' });
  const leaver = await w.member('Leaver');
  const changer = await w.member('Changer');
  const demoted = await w.member('Demoted', 'admin');
  const removed = await w.member('Removed');
  const closed = await project(admin, 'closed');
  const team = await project(admin, 'team');
  for (const [person, role] of [
    [removed, 'editor'],
    [changer, 'editor'],
  ] as const)
    await admin.call(`PUT /v1/projects/${team}/members/${person.user.id}`, { body: { role } });
  const ofClosed = await issue(admin, { name: 'of closed', kind: 'prj', projectId: closed });
  const ofLeaver = await issue(leaver, { name: 'of leaver' });
  return { tokens, kept, narrowed, disabled, leaver, changer, demoted, removed, closed, team, ofClosed, ofLeaver };
}
type Before = Awaited<ReturnType<typeof before>>;

/** What happens after the backup and must not be undone. */
async function narrow({ admin }: Pick<Stage, 'admin'>, was: Before): Promise<void> {
  const ok = async (target: string, body: unknown = {}) => {
    const response = await admin.call<{ effective?: boolean; receipt?: { ledger?: string } }>(target, { body });
    expect([target, response.status, response.body]).toEqual([target, expect.any(Number), expect.anything()]);
    expect(response.status).toBeLessThan(300);
    if (response.body.receipt) expect([target, response.body.receipt.ledger]).toEqual([target, 'written']);
    return response.body;
  };
  for (const [i, { id }] of was.tokens.entries())
    await ok(`POST /v1/tokens/${id}/revoke`, { reason: i % 2 ? 'exposed' : 'no_longer_needed' });
  await ok(`PATCH /v1/tokens/${was.narrowed.id}`, { scopes: ['demo:read'] });
  await ok(`PATCH /v1/tokens/${was.disabled.id}`, { disabled: true });
  await ok(`PATCH /v1/users/${was.leaver.user.id}`, { disabled: true });
  await ok(`PATCH /v1/users/${was.demoted.user.id}`, { role: 'member' });
  const gone = await admin.call(`DELETE /v1/projects/${was.closed}`);
  expect(gone.status).toBeLessThan(300);
  await admin.call(`DELETE /v1/projects/${was.team}/members/${was.removed.user.id}`);
  await ok(`PUT /v1/projects/${was.team}/members/${was.changer.user.id}`, { role: 'viewer' });
  const changed = await was.changer.call('POST /v1/session/password', {
    body: { currentPassword: 'correct horse battery staple', newPassword: NEW_PASSWORD },
  });
  expect(changed.status).toBeLessThan(300);
}

const checkOf = async (w: World, secret: string, at = w.service) =>
  (await w.bearer(secret, at).call('GET /v1/tokens/self')).status;

/** Every revoked token is refused, everything else that was narrowed still is, and good tokens work. */
async function mustHaveLostNothing(w: World, was: Before, at = w.service): Promise<Person> {
  for (const { secret } of was.tokens) expect(await checkOf(w, secret, at)).toBe(401);
  expect(await checkOf(w, was.kept.secret, at)).toBe(200);
  for (const { secret } of [was.disabled, was.ofClosed, was.ofLeaver]) expect(await checkOf(w, secret, at)).toBe(401);
  const self = await w.bearer(was.narrowed.secret, at).call<{ scopes: string[] }>('GET /v1/tokens/self');
  expect(self.body.scopes).toEqual(['demo:read']);
  // Sessions from before are over, and so are passwords that were changed.
  const admin = was.changer;
  expect((await w.as({ cookie: admin.cookie! }, at).call('GET /v1/session')).status).toBe(401);
  const body = { email: was.changer.user.email, password: 'correct horse battery staple' };
  expect((await w.as({}, at).call('POST /v1/session', { body })).status).toBe(401);
  const again = await signInAt(w, at);
  const teams = await again.call<{ items: { id: string; members: { userId: string; role: string }[] }[] }>(
    'GET /v1/projects',
  );
  const members = teams.body.items
    .find(({ id }) => id === was.team)!
    .members.filter(({ userId }) => [was.removed, was.changer].some((p) => p.user.id === userId));
  expect(members).toEqual([expect.objectContaining({ userId: was.changer.user.id, role: 'viewer' })]);
  const people = await again.call<{ items: { id: string; role: string }[] }>('GET /v1/users');
  expect(people.body.items.find(({ id }) => id === was.demoted.user.id)?.role).toBe('member');
  return again;
}

async function signInAt(w: World, at = w.service): Promise<Person> {
  const response = await waitFor(async () => {
    const tried = await w
      .as({}, at)
      .call('POST /v1/session', { body: { email: ADMIN_EMAIL, password: ADMIN_PASSWORD } });
    return tried.status === 200 ? tried : null;
  });
  return w.as({ cookie: response.headers.getSetCookie()[0]!.split(';', 1)[0]! }, at);
}

const systemOf = async (person: Person) => (await person.call<SystemState>('GET /v1/system')).body;

/** The ledger follows within a second; a mark has then moved in the database that is copied. */
/** All that the files of the ledgers in a folder contain. */
const entriesIn = (folder: string) =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => readFileSync(path.join(entry.parentPath, entry.name), 'utf8'))
    .join('\n');

const isMarked = ({ server }: Pick<Stage, 'server'>) =>
  waitFor(async () => (await server.query('SELECT 1 FROM ledger_streams')).length > 0);

const eventsOf = async (admin: Person, action: string) =>
  (await admin.call<{ items: AuditEvent[] }>('GET /v1/audit', { query: { action } })).body.items;

/** Whether tokens from before are held. */
const isRestored = async (w: World, secret: string, at: World['service']) =>
  (await w.bearer(secret, at).call<{ code: string }>('GET /v1/tokens/self')).body.code === 'restored';

/** Waits until tokens are answered again. */
const isBack = (w: World, secret: string, at = w.service) =>
  waitFor(async () => (await checkOf(w, secret, at)) !== 503, { timeoutMs: 40_000 });

/** A copy of the data folder, once a mark is in it. */
async function backUp(stage: Stage, was: Before): Promise<string> {
  const { server, w } = stage;
  await isMarked(stage);
  await server.stop();
  const copy = server.copy();
  await server.start();
  await isBack(w, was.kept.secret);
  return copy;
}

async function putBack(server: OwnServer, copy: string): Promise<void> {
  await server.stop();
  server.putBack(copy);
  await server.start();
}

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

const metricsOf = async (w: World) => (await fetch(`${w.service.opsUrl}/metrics`)).text();

describe('without a ledger that shows that nothing is missing', () => {
  /** @param meddle with the ledger while the folder is put back @returns the service that was started then */
  async function restored(meddle: (stage: Stage, ledgerThen: string) => Record<string, string>) {
    const stage = await setUp();
    const { server, w } = stage;
    const was = await before(stage);
    await isMarked(stage);
    await server.stop();
    const copy = server.copy();
    const ledgerThen = newFolder();
    cpSync(stage.ledger, ledgerThen, { recursive: true });
    await server.start();
    await isBack(w, was.kept.secret);
    await narrow(stage, was);
    await w.service.stop();
    await putBack(server, copy);
    const env = meddle(stage, ledgerThen);
    const second = await w.another(env);
    await waitFor(async () => (await server.query('SELECT 1 FROM restores WHERE settled_at IS NULL')).length > 0, {
      timeoutMs: 20_000,
    });
    await waitFor(() => second && checkOf(w, was.kept.secret, second).then((status) => status === 503));
    return { ...stage, was, second };
  }

  const replaced = (with_?: (folder: string, then: string) => void) => (_: Stage, then: string) => {
    const folder = newFolder();
    with_?.(folder, then);
    return { LEDGER_DIR: folder };
  };

  it.each([
    ['the ledger is missing', 'ledger_missing', replaced()],
    [
      'the ledger is a copy of an older one',
      'ledger_copied',
      replaced((folder, then) => cpSync(then, folder, { recursive: true })),
    ],
  ] as const)(
    'tokens from before are 503 restored until an administrator decides, when %s',
    async (_, reason, meddle) => {
      const { w, was, second } = await restored(meddle);
      for (const { secret } of [...was.tokens, was.kept]) {
        const response = await w.bearer(secret, second).call<{ code: string }>('GET /v1/tokens/self');
        expect([response.status, response.body.code]).toEqual([503, 'restored']);
      }
      // Sessions from before are not accepted either; an administrator signs in again and decides.
      expect((await w.as({ cookie: was.changer.cookie! }, second).call('GET /v1/session')).status).toBe(401);
      const admin = await signInAt(w, second);
      expect((await systemOf(admin)).restore).toMatchObject({ state: 'unsettled', reason, choice: null });
      const fresh = await issue(admin);
      expect(await checkOf(w, fresh.secret, second)).toBe(200);
      const settled = await admin.call<{ effective: boolean; restore: Restore }>('POST /v1/system/restore/settle', {
        body: { choice: 'revoke' },
      });
      expect(settled.body).toMatchObject({ effective: true, restore: { state: 'settled', choice: 'revoke' } });
      for (const { secret } of [...was.tokens, was.kept]) expect(await checkOf(w, secret, second)).toBe(401);
      expect(await checkOf(w, fresh.secret, second)).toBe(200);
      const body = { email: was.changer.user.email, password: 'correct horse battery staple' };
      expect((await w.as({}, second).call('POST /v1/session', { body })).status).toBe(401);
      expect((await admin.call('POST /v1/system/restore/settle', { body: { choice: 'accept' } })).status).toBe(409);
      expect(await eventsOf(admin, 'system.settled')).toHaveLength(1);
    },
  );

  it('what is held stays held over restarts of everything, until it is accepted', async () => {
    const LEDGER_DIR = newFolder();
    const { server, w, was, second } = await restored(() => ({ LEDGER_DIR }));
    await waitFor(async () => (await server.query('SELECT DISTINCT ledger FROM ledger_streams')).length === 2);
    await second.stop();
    await server.stop();
    await server.start();
    const third = await w.another({ LEDGER_DIR });
    const code = async (secret: string) =>
      (await w.bearer(secret, third).call<{ code: string }>('GET /v1/tokens/self')).body.code;
    await waitFor(async () => (await code(was.kept.secret)) === 'restored', { timeoutMs: 20_000 });
    for (const { secret } of was.tokens) expect(await code(secret)).toBe('restored');
    const admin = await signInAt(w, third);
    const settled = await admin.call<{ effective: boolean }>('POST /v1/system/restore/settle', {
      body: { choice: 'accept' },
    });
    expect(settled.body.effective).toBe(true);
    expect(await checkOf(w, was.kept.secret, third)).toBe(200);
    // A restart is a plain one from here on.
    await third.stop();
    const fourth = await w.another({ LEDGER_DIR });
    expect(await checkOf(w, was.kept.secret, fourth)).toBe(200);
  });

  it('one that was removed from the settings is missed once: what was decided without it holds for later starts', async () => {
    const stage = await setUp();
    const { server, w, admin } = stage;
    const kept = await issue(admin);
    await isMarked(stage);
    await w.service.stop();
    await server.stop();
    await server.start();
    const second = await w.another({ LEDGER_DIR: '' });
    await waitFor(() => isRestored(w, kept.secret, second), { timeoutMs: 20_000 });
    const again = await signInAt(w, second);
    const body = { choice: 'accept' };
    expect((await again.call('POST /v1/system/restore/settle', { body })).status).toBe(200);
    await server.stop();
    await server.start();
    await isBack(w, kept.secret, second);
    expect(await checkOf(w, kept.secret, second)).toBe(200);
    expect(await server.query('SELECT 1 FROM restores')).toHaveLength(1);
    // One that is kept again goes on where it ended.
    const missed = await issue(again);
    expect((await again.call(`POST /v1/tokens/${missed.id}/revoke`, { body: {} })).status).toBe(200);
    await second.stop();
    await w.another();
    await waitFor(() => entriesIn(stage.ledger).includes(missed.id));
  });

  it('a replica without one waits for a replica whose ledger vouches', async () => {
    const stage = await setUp();
    const { server, w, admin } = stage;
    const kept = await issue(admin);
    const second = await w.another({ LEDGER_DIR: '' });
    await isMarked(stage);
    await server.stop();
    await server.start();
    await isBack(w, kept.secret, second);
    expect(await checkOf(w, kept.secret, second)).toBe(200);
    expect(await server.query('SELECT 1 FROM restores')).toEqual([]);
    expect(await server.query('SELECT 1 FROM ledger_streams')).not.toEqual([]);
  });

  /** A token to keep and one to revoke, and a copy of the data folder from before that. The service has stopped. */
  async function twoTokens() {
    const stage = await setUp();
    const { server, w, admin } = stage;
    const [kept, revoked] = [await issue(admin), await issue(admin)];
    await isMarked(stage);
    await w.service.stop();
    await server.stop();
    const copy = server.copy();
    await server.start();
    /** @returns what the receipt says of the ledger */
    const revoke = async (at: World['service'], person = w.as({ cookie: admin.cookie! }, at)) => {
      const target = `POST /v1/tokens/${revoked.id}/revoke`;
      const { body } = await person.call<{ receipt: { ledger: string } }>(target, { body: {} });
      return body.receipt.ledger;
    };
    return { ...stage, kept, revoked, copy, revoke };
  }

  /** Moves the ledgers away, as when their disk is not there. @returns puts them back */
  function away(ledger: string, instead?: 'a file'): () => void {
    const elsewhere = `${ledger}-elsewhere`;
    closing.push(() => rmSync(elsewhere, { recursive: true, force: true }));
    renameSync(ledger, elsewhere);
    if (instead) writeFileSync(ledger, 'a folder that cannot be read');
    return () => {
      rmSync(ledger, { recursive: true });
      renameSync(elsewhere, ledger);
    };
  }

  it('what is held is settled by a ledger that can be read later', async () => {
    const { server, w, ledger, kept, revoked, copy, revoke } = await twoTokens();
    const second = await w.another();
    expect(await revoke(second)).toBe('written');
    await second.stop();
    await putBack(server, copy);
    const back = away(ledger, 'a file');
    const third = await w.another();
    await waitFor(() => isRestored(w, revoked.secret, third), { timeoutMs: 20_000 });
    back();
    await waitFor(async () => (await checkOf(w, kept.secret, third)) === 200, { timeoutMs: 40_000 });
    expect(await checkOf(w, revoked.secret, third)).toBe(401);
    expect(await server.query('SELECT choice FROM restores')).toEqual([{ choice: 'ledger' }]);
  });

  it('a mark does not move past what could not be read, while the service goes on', async () => {
    const { server, w, ledger, kept, revoked, copy, revoke } = await twoTokens();
    const second = await w.another();
    expect(await revoke(second)).toBe('written');
    await server.stop();
    server.putBack(copy);
    const back = away(ledger, 'a file');
    await server.start();
    await waitFor(() => isRestored(w, revoked.secret, second), { timeoutMs: 20_000 });
    back();
    await waitFor(async () => (await checkOf(w, kept.secret, second)) === 200, { timeoutMs: 40_000 });
    expect(await checkOf(w, revoked.secret, second)).toBe(401);
  });

  it('what a disk failed to keep when its history ended is still missed when all has started again', async () => {
    const { server, w, ledger, kept, revoked, copy, revoke } = await twoTokens();
    const earlier = await w.another();
    await isBack(w, kept.secret, earlier);
    await earlier.stop();
    const back = away(ledger, 'a file');
    const second = await w.another();
    expect(await revoke(second)).toBe('failed');
    await putBack(server, copy);
    await waitFor(() => isRestored(w, revoked.secret, second), { timeoutMs: 20_000 });
    await second.stop();
    back();
    const third = await w.another();
    await waitFor(async () => (await systemOf(await signInAt(w, third))).ledger.state === 'written');
    for (const { secret } of [kept, revoked]) expect(await isRestored(w, secret, third)).toBe(true);
    // Nor does an empty disk in its place, after another start of PostgreSQL, make it a plain one.
    await third.stop();
    await server.stop();
    await server.start();
    const fourth = await w.another({ LEDGER_DIR: newFolder() });
    await waitFor(() => isRestored(w, kept.secret, fourth), { timeoutMs: 20_000 });
    expect(await isRestored(w, revoked.secret, fourth)).toBe(true);
  });

  it('a backup from before its ledger was begun is for an administrator to decide, though the ledger is whole', async () => {
    const stage = await setUp();
    const { server, w, admin } = stage;
    const kept = await issue(admin);
    await isMarked(stage);
    await w.service.stop();
    // As a dump of before version 0.2 is, once it was migrated.
    await server.query('UPDATE invalidation_log SET settled_history = NULL, settled_incarnation = NULL');
    await server.query('DELETE FROM ledger_streams');
    await server.stop();
    await server.start();
    const second = await w.another();
    await waitFor(() => isRestored(w, kept.secret, second), { timeoutMs: 20_000 });
  });

  it('a ledger beside its own that cannot be read is for an administrator to decide, once', async () => {
    const stage = await setUp();
    const { server, w, admin, ledger } = stage;
    const kept = await issue(admin);
    await isMarked(stage);
    await w.service.stop();
    await server.stop();
    mkdirSync(path.join(ledger, '7518000000000000001-latchkey', 'ledger'), { recursive: true });
    await server.start();
    const second = await w.another();
    await waitFor(() => isRestored(w, kept.secret, second), { timeoutMs: 20_000 });
    const again = await signInAt(w, second);
    expect((await systemOf(again)).restore).toMatchObject({ state: 'unsettled', reason: 'ledger_uncertain' });
    const body = { choice: 'accept' };
    expect((await again.call('POST /v1/system/restore/settle', { body })).status).toBe(200);
    await second.stop();
    await server.stop();
    await server.start();
    const third = await w.another();
    await isBack(w, kept.secret, third);
    expect(await checkOf(w, kept.secret, third)).toBe(200);
  });

  it('what was revoked before the disk of the ledger was mounted is written to that ledger too', async () => {
    const { w, ledger, kept, revoked, revoke } = await twoTokens();
    const back = away(ledger);
    const late = await w.another();
    await waitFor(() => isRestored(w, kept.secret, late), { timeoutMs: 20_000 });
    expect(await revoke(late, await signInAt(w, late))).toBe('written');
    back();
    await waitFor(() => entriesIn(ledger).includes(revoked.id), { timeoutMs: 40_000 });
  });
});
