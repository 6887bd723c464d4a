import type { IssuedToken, Token, TokenEffect } from '@latchkey/contracts';
import { waitFor } from '@latchkey/testing';
import { issue, type Person, project, type World, world } from './harness.js';
import type { Page } from './types.js';

let w: World;
let person: Awaited<ReturnType<World['member']>>;
beforeAll(async () => {
  w = await world();
  person = await w.member();
});
afterAll(() => w.close());

const read = async (id: string) => (await person.call<Token>(`/v1/tokens/${id}`)).body;
const invalidations = async () =>
  await w.database.query('SELECT kind, subject, cut FROM invalidations ORDER BY created_at, id');

describe('changing a token', () => {
  test("changing a token's texts writes no invalidation; changing its bounds does, and is effective when it returns", async () => {
    const { id, secret } = await issue(person, { scopes: ['tokens:read'] });
    const before = (await invalidations()).length;
    const texts = await person.call<TokenEffect>(`PATCH /v1/tokens/${id}`, {
      body: { name: 'new', description: 'why', metadata: { a: 'b' } },
    });
    expect(texts.body).toMatchObject({
      effective: true,
      receipt: null,
      token: { name: 'new', description: 'why', metadata: { a: 'b' } },
    });
    expect((await invalidations()).length).toBe(before);
    const bounds = await person.call<TokenEffect>(`PATCH /v1/tokens/${id}`, {
      body: { scopes: [], allowedIps: ['::ffff:127.0.0.1', '2001:DB8::1/32'] },
    });
    expect(bounds.body).toMatchObject({
      effective: true,
      receipt: { verifiers: [] },
      token: { scopes: [], allowedIps: ['127.0.0.1/32', '2001:db8::/32'] },
    });
    expect((await invalidations()).at(-1)).toMatchObject({ kind: 'token', subject: id, cut: false });
    expect((await w.bearer(secret).call('/v1/tokens')).status).toBe(403);
    await person.call(`PATCH /v1/tokens/${id}`, { body: { disabled: true } });
    expect((await invalidations()).at(-1)).toMatchObject({ subject: id, cut: true });
    expect((await w.bearer(secret).call('/v1/tokens/self')).status).toBe(401);
    await person.call(`PATCH /v1/tokens/${id}`, { body: { disabled: false } });
    expect((await w.bearer(secret).call('/v1/tokens/self')).status).toBe(200);
  });

  test('changing a revoked token is rejected, and so are an expiry and an empty change', async () => {
    const { id } = await issue(person);
    expect((await person.call(`PATCH /v1/tokens/${id}`, { body: {} })).status).toBe(400);
    expect((await person.call(`PATCH /v1/tokens/${id}`, { body: { expiresAt: '2999-01-01T00:00:00Z' } })).status).toBe(
      400,
    );
    await person.call(`DELETE /v1/tokens/${id}`);
    expect((await person.call(`PATCH /v1/tokens/${id}`, { body: { name: 'x' } })).status).toBe(409);
  });
});

describe('rotating with an overlap', () => {
  test('after a rotation with an overlap both tokens work until it ends, never past the old expiry', async () => {
    const old = await issue(person, { expiresInSeconds: 300 });
    const rotated = await person.call<IssuedToken>(`POST /v1/tokens/${old.id}/rotate`, {
      body: { overlapSeconds: 3600 },
    });
    expect(rotated.body.expiresAt).toBe(old.expiresAt);
    expect(await read(old.id)).toMatchObject({
      status: 'active',
      expiresAt: old.expiresAt,
      rotatedTo: rotated.body.id,
    });
    const other = await issue(person);
    await person.call(`POST /v1/tokens/${other.id}/rotate`, { body: { overlapSeconds: 60 } });
    const expiry = Date.parse((await read(other.id)).expiresAt!);
    expect(Math.abs(expiry - Date.now() - 60_000)).toBeLessThan(30_000);
  });

  test('a person can give a successor another expiry, or none', async () => {
    const a = await issue(person, { expiresInSeconds: 300 });
    const forever = await person.call<IssuedToken>(`POST /v1/tokens/${a.id}/rotate`, { body: { expiresAt: null } });
    expect(forever.body.expiresAt).toBeNull();
    const b = await issue(person);
    const short = await person.call<IssuedToken>(`POST /v1/tokens/${b.id}/rotate`, { body: { expiresInSeconds: 60 } });
    expect(short.body.expiresAt).not.toBeNull();
  });

  test('the successor of a token that rotates itself keeps its parent, and is revoked with it', async () => {
    const parent = await issue(person, { scopes: ['tokens:write'] });
    const child = (await w.bearer(parent.secret).call<IssuedToken>('POST /v1/tokens', { body: { name: 'child' } }))
      .body;
    const next = await w.bearer(child.secret).call<IssuedToken>('POST /v1/tokens/self/rotate');
    expect(next.body).toMatchObject({ rotatedFrom: child.id, parentId: parent.id });
    expect((await w.bearer(child.secret).call('/v1/tokens/self')).status).toBe(401);
    await person.call(`DELETE /v1/tokens/${parent.id}`);
    expect((await w.bearer(next.body.secret).call('/v1/tokens/self')).status).toBe(401);
  });

  test.each(['revoked', 'disabled', 'expired'])('a token that is %s is not rotated', async (state) => {
    const { id } = await issue(person);
    if (state === 'revoked') await person.call(`DELETE /v1/tokens/${id}`);
    if (state === 'disabled') await person.call(`PATCH /v1/tokens/${id}`, { body: { disabled: true } });
    if (state === 'expired') await w.database.query('UPDATE tokens SET expires_at = now() WHERE id = $1', [id]);
    expect((await person.call(`POST /v1/tokens/${id}/rotate`)).status).toBe(409);
  });
});

test('a token can revoke itself', async () => {
  const { id, secret } = await issue(person);
  const response = await w.bearer(secret).call<TokenEffect>('DELETE /v1/tokens/self');
  expect(response.body).toMatchObject({
    effective: true,
    token: { id, status: 'revoked', revokedBy: { type: 'token', id } },
  });
  expect((await w.bearer(secret).call('/v1/tokens/self')).status).toBe(401);
  expect((await person.call('GET /v1/tokens/self')).status).toBe(401);
});

test('Prefer: wait=0 returns at once, and a revocation that is not effective yet is 202 with the pending verifiers', async () => {
  const { id } = await issue(person);
  await w.database.query(
    `INSERT INTO leases (verifier_id, name, caller, renewal, lease_ms, renewed_at) VALUES (gen_random_uuid(), 'unresponsive', 'test', pg_current_xact_id(), 2000, now())`,
  );
  const pending = await person.call<TokenEffect>(`POST /v1/tokens/${id}/revoke`, {
    headers: { prefer: 'respond-async, wait=0' },
  });
  expect(pending.status).toBe(202);
  expect(pending.body).toMatchObject({ effective: false, receipt: null, pending: [{ name: 'unresponsive' }] });
  const confirmed = await person.call<TokenEffect>(`POST /v1/tokens/${id}/revoke`);
  expect(confirmed.status).toBe(200);
  const receipt = { verifiers: [{ name: 'unresponsive', by: 'lease' }] };
  expect(confirmed.body).toMatchObject({ effective: true, receipt });
  // Two requests waited for the same confirmation: the receipt of the first to finish is stored.
  const stored = await waitFor(async () => (await read(id)).receipt);
  expect(stored).toMatchObject(receipt);
  await person.call(`POST /v1/tokens/${id}/revoke`);
  expect((await read(id)).receipt).toEqual(stored);
  await w.database.query('DELETE FROM leases');
});

describe('listing', () => {
  test('the token list finds by name, prefix, status, owner and project, and keeps revoked and expired tokens', async () => {
    const owner = await w.member();
    const at = await project(owner);
    const own = await issue(owner, { name: 'Nightly 100% build_' });
    const gone = await issue(owner, { name: 'gone' });
    await owner.call(`DELETE /v1/tokens/${gone.id}`);
    const ofProject = await issue(owner, { kind: 'prj', projectId: at, name: 'deploy' });
    const expired = await issue(owner, { name: 'old' });
    await w.database.query('UPDATE tokens SET expires_at = now() WHERE id = $1', [expired.id]);
    const ids = async (query: Record<string, string>) =>
      (await owner.call<Page<Token>>('/v1/tokens', { query })).body.items.map(({ id }) => id);
    expect(await ids({})).toEqual([expired.id, ofProject.id, gone.id, own.id]);
    expect(await ids({ q: 'nightly 100% b' })).toEqual([own.id]);
    expect(await ids({ q: '100%' })).toEqual([own.id]);
    expect(await ids({ q: '%' })).toEqual([]);
    expect(await ids({ q: 'build_' })).toEqual([own.id]);
    expect(await ids({ q: ofProject.start })).toEqual([ofProject.id]);
    // Too short to match anywhere: it matches at the beginning of a word.
    expect(await ids({ q: 'bu' })).toEqual([own.id]);
    expect(await ids({ q: 'ui' })).toEqual([]);
    expect(await ids({ status: 'revoked' })).toEqual([gone.id]);
    expect(await ids({ status: 'expired' })).toEqual([expired.id]);
    expect(await ids({ status: 'active' })).toEqual([ofProject.id, own.id]);
    expect(await ids({ owner: 'me' })).toEqual([expired.id, gone.id, own.id]);
    expect(await ids({ projectId: at })).toEqual([ofProject.id]);
    expect(await ids({ owner: person.user.id })).toEqual([]);
    const admin = await w.signIn();
    const all = (await admin.call<Page<Token>>('/v1/tokens', { query: { owner: owner.user.id } })).body.items;
    expect(all.map(({ id }) => id)).toEqual([expired.id, gone.id, own.id]);
  });
});

test('a token is found by its name in any alphabet, also in the middle of a word', async () => {
  const owner = await w.member();
  const names = ['Übergabe an Köln', '日本語のトークン', 'a\\b 50%', 'ÉTÉ'];
  for (const name of names) await issue(owner, { name });
  const found = async (q: string) =>
    (await owner.call<Page<Token>>('/v1/tokens', { query: { q } })).body.items.map(({ name }) => name);
  expect(await found('übergabe')).toEqual([names[0]]);
  expect(await found('öln')).toEqual([names[0]]);
  expect(await found('本語')).toEqual([names[1]]);
  expect(await found('été')).toEqual([names[3]]);
  expect(await found('a\\b')).toEqual([names[2]]);
  expect(await found('50%')).toEqual([names[2]]);
  expect(await found('bergabe_an')).toEqual([]);
});

test('a derived token is listed as disabled while any of its ancestors is', async () => {
  const owner = await w.member();
  const make = async (by: Person, name: string) => issue(by, { name, scopes: ['tokens:write'] });
  const root = await make(owner, 'root');
  const child = await make(w.bearer(root.secret), 'child');
  const grandchild = await make(w.bearer(child.secret), 'grandchild');
  const set = (id: string, disabled: boolean) => owner.call(`PATCH /v1/tokens/${id}`, { body: { disabled } });
  const disabled = async () =>
    (await owner.call<Page<Token>>('/v1/tokens', { query: { status: 'disabled' } })).body.items.map(({ name }) => name);
  await set(child.id, true);
  await set(root.id, true);
  expect(await disabled()).toEqual(['grandchild', 'child', 'root']);
  await set(root.id, false);
  expect(await disabled()).toEqual(['grandchild', 'child']);
  expect((await owner.call<Token>(`/v1/tokens/${grandchild.id}`)).body.status).toBe('disabled');
  await set(child.id, false);
  expect(await disabled()).toEqual([]);
});

test('usage is returned as jobs has written it', async () => {
  const { id } = await issue(person);
  await w.database.query(
    `INSERT INTO usage_hourly VALUES ($1, '2026-11-20T10:00:00Z', 'demo', 'allowed', 7), ($1, '2026-11-20T11:00:00Z', 'demo', 'rate_limited', 2)`,
    [id],
  );
  await w.database.query(
    `INSERT INTO usage_callers VALUES ($1, '203.0.113.9', 'curl/8', '2026-11-20T10:00:00Z', '2026-11-20T11:10:00Z', 9)`,
    [id],
  );
  await w.database.query(`INSERT INTO token_usage VALUES ($1, '2026-11-20T11:10:00Z', '203.0.113.9', 9)`, [id]);
  const query = { from: '2026-11-20T00:00:00Z', to: '2026-11-21T00:00:00Z' };
  expect((await person.call(`/v1/tokens/${id}/usage`, { query })).body).toEqual({
    total: 9,
    buckets: [
      { hour: '2026-11-20T11:00:00.000Z', route: 'demo', status: 'rate_limited', count: 2 },
      { hour: '2026-11-20T10:00:00.000Z', route: 'demo', status: 'allowed', count: 7 },
    ],
    callers: [
      {
        ip: '203.0.113.9',
        userAgent: 'curl/8',
        firstSeen: '2026-11-20T10:00:00.000Z',
        lastSeen: '2026-11-20T11:10:00.000Z',
        count: 9,
      },
    ],
  });
  expect(await read(id)).toMatchObject({
    lastUsedAt: '2026-11-20T11:10:00.000Z',
    lastUsedIp: '203.0.113.9',
    usageCount: 9,
  });
  expect((await person.call(`/v1/tokens/${id}/usage`, { query: { from: query.to, to: query.from } })).status).toBe(400);
  expect((await (await w.member()).call(`/v1/tokens/${id}/usage`)).status).toBe(404);
});
