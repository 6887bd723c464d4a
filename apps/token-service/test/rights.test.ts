import type { IssuedToken, Project, Token, TokenEffect } from '@latchkey/contracts';
import { issue, type Person, project, type World, world } from './harness.js';
import type { Page } from './types.js';

type Named = Person & { user: NonNullable<Person['user']> };
let w: World;
let admin: Person;
let owner: Named;
let editor: Named;
let viewer: Named;
let stranger: Named;
let at: string;

beforeAll(async () => {
  w = await world();
  admin = await w.signIn();
  [owner, editor, viewer, stranger] = (await Promise.all(
    ['Owner', 'Editor', 'Viewer', 'Stranger'].map((name) => w.member(name)),
  )) as [Named, Named, Named, Named];
  at = await project(owner);
  await owner.call(`PUT /v1/projects/${at}/members/${editor.user.id}`, { body: { role: 'editor' } });
  await owner.call(`PUT /v1/projects/${at}/members/${viewer.user.id}`, { body: { role: 'viewer' } });
});
afterAll(() => w.close());

const everyone = () => [admin, owner, editor, viewer, stranger];
const inProject = (fields: object = {}) => ({ kind: 'prj', projectId: at, ...fields });
const statusesOf = (run: (person: Person) => Promise<{ status: number }>) =>
  Promise.all(everyone().map(async (person) => (await run(person)).status));

describe("a project's tokens", () => {
  test('project tokens are issued by editors, owners and administrators', async () => {
    const body = { name: 'deploy', ...inProject() };
    expect(await statusesOf((person) => person.call('POST /v1/tokens', { body }))).toEqual([201, 201, 201, 403, 404]);
  });

  test('project tokens are visible to all members, and changed by those who may issue them', async () => {
    const { id } = await issue(owner, inProject());
    expect(await statusesOf((person) => person.call(`/v1/tokens/${id}`))).toEqual([200, 200, 200, 200, 404]);
    const body = { name: 'renamed' };
    expect(await statusesOf((person) => person.call(`PATCH /v1/tokens/${id}`, { body }))).toEqual([
      200, 200, 200, 403, 404,
    ]);
    expect(await statusesOf((person) => person.call(`POST /v1/tokens/${id}/revoke`))).toEqual([
      200, 200, 200, 403, 404,
    ]);
  });

  test('project tokens get only scopes that their creator has in the project', async () => {
    const tries: [Person, string, number][] = [
      [owner, 'demo:admin', 201],
      [editor, 'demo:write', 201],
      [editor, 'demo:admin', 403],
      [owner, 'users:read', 403],
      [owner, 'tokens:verify', 403],
      [admin, 'tokens:verify', 201],
    ];
    for (const [person, scope, status] of tries)
      expect(
        (await person.call('POST /v1/tokens', { body: { name: 'x', ...inProject({ scopes: [scope] }) } })).status,
      ).toBe(status);
  });

  test('project tokens give no access outside their project', async () => {
    const token = await issue(
      admin,
      inProject({ scopes: ['tokens:read', 'tokens:write', 'projects:read', 'audit:read', 'users:read'] }),
    );
    const bearer = w.bearer(token.secret);
    const { items } = (await bearer.call<Page<Token>>('/v1/tokens')).body;
    expect(new Set(items.map((one) => one.owner.id))).toEqual(new Set([at]));
    const projects = (await bearer.call<Page<Project>>('/v1/projects')).body.items;
    expect(projects.map(({ id }) => id)).toEqual([at]);
    for (const path of ['/v1/audit', '/v1/users']) expect((await bearer.call(path)).status).toBe(403);
    expect((await bearer.call('POST /v1/tokens', { body: { name: 'personal' } })).status).toBe(403);
    const other = await project(stranger);
    const foreign = await issue(stranger, { kind: 'prj', projectId: other });
    expect((await bearer.call(`/v1/tokens/${foreign.id}`)).status).toBe(404);
    expect((await bearer.call('POST /v1/tokens', { body: { name: 'x', kind: 'prj', projectId: other } })).status).toBe(
      404,
    );
    expect((await bearer.call('POST /v1/tokens', { body: { name: 'child', ...inProject() } })).status).toBe(201);
  });

  test('project tokens stop when the project closes, and none is issued in it any more', async () => {
    const closing = await project(owner);
    const token = await issue(owner, { kind: 'prj', projectId: closing });
    const closed = await owner.call<{ effective: boolean; project: Project }>(`DELETE /v1/projects/${closing}`);
    expect(closed.body).toMatchObject({ effective: true, project: { closed: true } });
    expect((await w.bearer(token.secret).call('/v1/tokens/self')).status).toBe(401);
    expect([404, 409]).toContain(
      (await owner.call('POST /v1/tokens', { body: { name: 'x', kind: 'prj', projectId: closing } })).status,
    );
    expect((await owner.call(`DELETE /v1/projects/${closing}`)).status).toBe(200);
  });
});

describe('personal tokens', () => {
  test('personal tokens are visible to and changed by their owner and administrators only', async () => {
    const { id } = await issue(editor);
    expect(await statusesOf((person) => person.call(`/v1/tokens/${id}`))).toEqual([200, 404, 200, 404, 404]);
    expect(await statusesOf((person) => person.call(`DELETE /v1/tokens/${id}`))).toEqual([200, 404, 200, 404, 404]);
  });

  test("an administrator never gets another person's secret", async () => {
    const { id } = await issue(editor);
    const response = await admin.call(`POST /v1/tokens/${id}/rotate`);
    expect(response.status).toBe(403);
    expect(response.text).not.toContain('lk_pat_');
  });

  test('personal tokens can do what their owner can do now, also when that changes', async () => {
    const person = await w.member();
    await owner.call(`PUT /v1/projects/${at}/members/${person.user.id}`, { body: { role: 'editor' } });
    const token = await issue(person, { scopes: ['tokens:write', 'tokens:read'] });
    const bearer = w.bearer(token.secret);
    const make = () => bearer.call('POST /v1/tokens', { body: { name: 'x', ...inProject() } });
    expect((await make()).status).toBe(201);
    const changed = await owner.call(`PUT /v1/projects/${at}/members/${person.user.id}`, { body: { role: 'viewer' } });
    expect(changed.body).toMatchObject({ effective: true });
    expect((await make()).status).toBe(403);
    await owner.call(`DELETE /v1/projects/${at}/members/${person.user.id}`);
    expect((await make()).status).toBe(404);
    const isOfDisabled = async () => (await admin.call<Token>(`/v1/tokens/${token.id}`)).body.owner.disabled;
    expect(await isOfDisabled()).toBe(false);
    await admin.call(`PATCH /v1/users/${person.user.id}`, { body: { disabled: true } });
    expect((await make()).status).toBe(401);
    expect(await isOfDisabled()).toBe(true);
    await admin.call(`PATCH /v1/users/${person.user.id}`, { body: { disabled: false } });
    expect((await bearer.call('/v1/tokens/self')).status).toBe(200);
  });

  test('only administrators can revoke all tokens of a person at once', async () => {
    const person = await w.member();
    const tokens = await Promise.all([1, 2, 3].map(() => issue(person)));
    const target = `POST /v1/users/${person.user.id}/revoke-tokens`;
    expect((await owner.call(target)).status).toBe(403);
    expect((await admin.call(target, { body: { reason: 'owner_left' } })).body).toMatchObject({ effective: true });
    for (const { secret } of tokens) expect((await w.bearer(secret).call('/v1/tokens/self')).status).toBe(401);
  });
});

describe('tokens that issue tokens', () => {
  const make = (secret: string, body: object) =>
    w.bearer(secret).call<IssuedToken>('POST /v1/tokens', { body: { name: 'child', ...body } });

  test('a token issues tokens only within its own scopes, addresses, rate limit and expiry', async () => {
    const expiresAt = new Date(Date.now() + 3_600_000).toISOString();
    const bounds = { allowedIps: ['127.0.0.0/8'], rateLimit: { limit: 1000, windowSeconds: 60 }, expiresAt };
    const parent = await issue(owner, { scopes: ['tokens:write', 'demo:read'], ...bounds });
    const within = {
      scopes: ['demo:read'],
      allowedIps: ['127.0.0.1'],
      rateLimit: { limit: 10, windowSeconds: 60 },
      expiresAt,
    };
    const made = await make(parent.secret, within);
    expect(made.status).toBe(201);
    expect(made.body).toMatchObject({
      parentId: parent.id,
      createdBy: { type: 'token', id: parent.id },
      owner: { id: owner.user.id },
    });
    const beyond: object[] = [
      { ...within, scopes: ['demo:write'] },
      { ...within, allowedIps: [] },
      { ...within, allowedIps: ['126.0.0.0/7'] },
      { ...within, rateLimit: null },
      { ...within, rateLimit: { limit: 1001, windowSeconds: 60 } },
      { ...within, rateLimit: { limit: 900, windowSeconds: 1 } },
      { ...within, expiresAt: undefined },
      { ...within, expiresAt: new Date(Date.parse(expiresAt) + 1000).toISOString() },
    ];
    for (const body of beyond) expect((await make(parent.secret, body)).status).toBe(403);
  });

  test('derived tokens are revoked with their ancestor, and bounded while it is narrowed or disabled', async () => {
    const parent = await issue(owner, { scopes: ['tokens:write', 'tokens:read'] });
    const child = (await make(parent.secret, { scopes: ['tokens:write', 'tokens:read'] })).body;
    const grandchild = (await make(child.secret, { scopes: ['tokens:read'] })).body;
    const works = async (secret: string) => (await w.bearer(secret).call('/v1/tokens')).status;
    expect(await works(grandchild.secret)).toBe(200);
    await owner.call(`PATCH /v1/tokens/${parent.id}`, { body: { scopes: ['tokens:write'] } });
    expect(await works(grandchild.secret)).toBe(403);
    await owner.call(`PATCH /v1/tokens/${parent.id}`, {
      body: { scopes: ['tokens:write', 'tokens:read'], disabled: true },
    });
    expect(await works(grandchild.secret)).toBe(401);
    expect((await owner.call<Token>(`/v1/tokens/${grandchild.id}`)).body.status).toBe('disabled');
    await owner.call(`PATCH /v1/tokens/${parent.id}`, { body: { disabled: false } });
    expect(await works(grandchild.secret)).toBe(200);
    const revoked = await owner.call<TokenEffect>(`POST /v1/tokens/${parent.id}/revoke`, {
      body: { reason: 'policy' },
    });
    expect(revoked.body.effective).toBe(true);
    expect(await works(grandchild.secret)).toBe(401);
    for (const { id } of [child, grandchild])
      expect((await owner.call<Token>(`/v1/tokens/${id}`)).body).toMatchObject({
        status: 'revoked',
        revocationReason: 'policy',
      });
  });

  test('a token can neither widen itself nor take over a wider one', async () => {
    const wide = await issue(owner, { scopes: ['tokens:write', 'demo:read'] });
    const narrow = await issue(owner, { scopes: ['tokens:write'] });
    const bearer = w.bearer(narrow.secret);
    const tries = [
      bearer.call(`POST /v1/tokens/${wide.id}/rotate`),
      bearer.call(`PATCH /v1/tokens/${narrow.id}`, { body: { scopes: ['tokens:write', 'demo:read'] } }),
      bearer.call('POST /v1/tokens/self/rotate', { body: { expiresAt: null } }),
    ];
    expect((await Promise.all(tries)).map(({ status }) => status)).toEqual([403, 403, 403]);
    expect((await bearer.call(`PATCH /v1/tokens/${wide.id}`, { body: { disabled: true } })).status).toBe(200);
    expect((await bearer.call(`PATCH /v1/tokens/${wide.id}`, { body: { disabled: false } })).status).toBe(403);
  });

  test('a token cannot remove its own bounds', async () => {
    const token = await issue(owner, {
      scopes: ['tokens:write'],
      allowedIps: ['127.0.0.1'],
      rateLimit: { limit: 1000, windowSeconds: 1 },
    });
    const bearer = w.bearer(token.secret);
    for (const body of [{ allowedIps: [] }, { allowedIps: ['0.0.0.0/0'] }, { rateLimit: null }])
      expect((await bearer.call(`PATCH /v1/tokens/${token.id}`, { body })).status).toBe(403);
    expect(
      (await bearer.call(`PATCH /v1/tokens/${token.id}`, { body: { rateLimit: { limit: 500, windowSeconds: 1 } } }))
        .status,
    ).toBe(200);
  });
});

describe('the last owner and administrator', () => {
  test("a project's last owner is neither removed nor demoted", async () => {
    const own = await project(stranger);
    expect((await stranger.call(`DELETE /v1/projects/${own}/members/${stranger.user.id}`)).status).toBe(409);
    expect(
      (await stranger.call(`PUT /v1/projects/${own}/members/${stranger.user.id}`, { body: { role: 'viewer' } })).status,
    ).toBe(409);
  });

  test('the last administrator is neither disabled nor demoted', async () => {
    for (const body of [{ disabled: true }, { role: 'member' }])
      expect((await admin.call(`PATCH /v1/users/${admin.user!.id}`, { body })).status).toBe(409);
  });
});

test('people are managed by administrators, and members by owners', async () => {
  const body = { email: 'x@example.org', name: 'X', role: 'member' };
  expect((await owner.call('POST /v1/users', { body })).status).toBe(403);
  expect((await owner.call('/v1/users')).status).toBe(403);
  expect(
    (await editor.call(`PUT /v1/projects/${at}/members/${stranger.user.id}`, { body: { role: 'viewer' } })).status,
  ).toBe(403);
  expect(
    (await stranger.call(`PUT /v1/projects/${at}/members/${stranger.user.id}`, { body: { role: 'owner' } })).status,
  ).toBe(404);
  expect((await viewer.call(`PATCH /v1/projects/${at}`, { body: { name: 'mine' } })).status).toBe(403);
  expect((await admin.call('POST /v1/users', { body: { ...body, email: 'ADMIN@example.org' } })).status).toBe(409);
});

test('every caller can list the known scopes, with those that they can grant', async () => {
  const grantable = async (person: Person) => {
    const { items } = (await person.call<{ items: { name: string; grantable: boolean }[] }>('/v1/scopes')).body;
    return items.filter((one) => one.grantable).map(({ name }) => name);
  };
  expect(await grantable(admin)).toContain('tokens:verify');
  const own = await grantable(stranger);
  expect(own).toContain('demo:read');
  expect(own).not.toContain('tokens:verify');
});
