import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { AuditEvent, SystemState } from '@latchkey/contracts';
import { type OwnServer, ownServer, waitFor } from '@latchkey/testing';
import { migrate } from '../src/migrate.js';
import { asRole } from './database.js';
import { ADMIN_EMAIL, ADMIN_PASSWORD, issue, type Person, project, type World, world } from './harness.js';

export const LEASE_MS = '1500';
export const LEDGER_KEY = 'ledger-key-for-tests-0123456789abcdef';
export const REVOKED = 8;

/** Stopped: the server of each test starts as a copy of it. */
export let migrated: OwnServer;
beforeAll(async () => {
  migrated = await ownServer(async (url) => void (await migrate(url)));
  await migrated.stop();
});
afterAll(() => migrated.close());

/** What a test has opened; closed at its end. */
export const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

export function newFolder(): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'latchkey-ledger-'));
  closing.push(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export interface Stage {
  server: OwnServer;
  w: World;
  admin: Person;
  ledger: string;
}

export async function setUp(env: Record<string, string> = {}): Promise<Stage> {
  const server = await ownServer(migrated);
  closing.push(() => server.close());
  const ledger = newFolder();
  const w = await world({
    env: { DATABASE_URL: asRole(server.url, 'latchkey_service'), LEASE_MS, LEDGER_DIR: ledger, LEDGER_KEY, ...env },
  });
  closing.push(() => w.close());
  return { server, w, admin: await w.signIn(), ledger };
}

export const NEW_PASSWORD = 'a password of after the backup';

/** What is there when the backup is made. */
export async function before({ w, admin }: Pick<Stage, 'w' | 'admin'>) {
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
export async function narrow({ admin }: Pick<Stage, 'admin'>, was: Before): Promise<void> {
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

export const checkOf = async (w: World, secret: string, at = w.service) =>
  (await w.bearer(secret, at).call('GET /v1/tokens/self')).status;

/** Every revoked token is refused, everything else that was narrowed still is, and good tokens work. */
export async function mustHaveLostNothing(w: World, was: Before, at = w.service): Promise<Person> {
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

export async function signInAt(w: World, at = w.service): Promise<Person> {
  const response = await waitFor(async () => {
    const tried = await w
      .as({}, at)
      .call('POST /v1/session', { body: { email: ADMIN_EMAIL, password: ADMIN_PASSWORD } });
    return tried.status === 200 ? tried : null;
  });
  return w.as({ cookie: response.headers.getSetCookie()[0]!.split(';', 1)[0]! }, at);
}

export const systemOf = async (person: Person) => (await person.call<SystemState>('GET /v1/system')).body;

/** All that the files of the ledgers in a folder contain. */
export const entriesIn = (folder: string) =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => readFileSync(path.join(entry.parentPath, entry.name), 'utf8'))
    .join('\n');

/** The ledger follows within a second; a mark has then moved in the database that is copied. */
export const isMarked = ({ server }: Pick<Stage, 'server'>) =>
  waitFor(async () => (await server.query('SELECT 1 FROM ledger_streams')).length > 0);

export const eventsOf = async (admin: Person, action: string) =>
  (await admin.call<{ items: AuditEvent[] }>('GET /v1/audit', { query: { action } })).body.items;

/** Whether tokens from before are held. */
export const isRestored = async (w: World, secret: string, at: World['service']) =>
  (await w.bearer(secret, at).call<{ code: string }>('GET /v1/tokens/self')).body.code === 'restored';

/** Waits until tokens are answered again. */
export const isBack = (w: World, secret: string, at = w.service) =>
  waitFor(async () => (await checkOf(w, secret, at)) !== 503, { timeoutMs: 40_000 });

/** A copy of the data folder, once a mark is in it. */
export async function backUp(stage: Stage, was: Before): Promise<string> {
  const { server, w } = stage;
  await isMarked(stage);
  await server.stop();
  const copy = server.copy();
  await server.start();
  await isBack(w, was.kept.secret);
  return copy;
}

export async function putBack(server: OwnServer, copy: string): Promise<void> {
  await server.stop();
  server.putBack(copy);
  await server.start();
}

export const metricsOf = async (w: World) => (await fetch(`${w.service.opsUrl}/metrics`)).text();
