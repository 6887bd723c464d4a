import { setTimeout as sleep } from 'node:timers/promises';
import type { IssuedToken, Token } from '@latchkey/contracts';
import type { TokenService } from '../src/app.js';
import { type ApiResponse, issue, type Person, project, type World, world } from './harness.js';
import type { Page } from './types.js';

let w: World;
let second: TokenService;
let person: Person;
beforeAll(async () => {
  // A commit that takes longer than a lease, or five seconds, counts as lost: on a busy machine many at once are slow.
  w = await world({ env: { LEASE_MS: '10000' } });
  second = await w.another();
  person = await w.member();
});
afterAll(() => w.close());

const elsewhere = () => w.as({ cookie: person.cookie! }, second);
const statuses = (responses: ApiResponse[]) => responses.map(({ status }) => status).sort();

test('replicas that start together create one first administrator', async () => {
  const fresh = await world();
  try {
    await fresh.database.query('DELETE FROM sessions; DELETE FROM members; DELETE FROM users');
    await Promise.all([fresh.another(), fresh.another(), fresh.another()]);
    expect(await fresh.database.query('SELECT email, role FROM users')).toEqual([
      { email: 'admin@example.org', role: 'admin' },
    ]);
  } finally {
    await fresh.close();
  }
});

describe('requests with the same Idempotency-Key', () => {
  test('of concurrent requests with one Idempotency-Key one issues; the others get the same token without its secret, on any replica', async () => {
    const headers = { 'idempotency-key': 'once-only' };
    const send = { body: { name: 'once', metadata: { a: '1', b: '2' } }, headers };
    const responses = await Promise.all(
      Array.from({ length: 12 }, (_, i) => (i % 2 ? person : elsewhere()).call<IssuedToken>('POST /v1/tokens', send)),
    );
    expect(statuses(responses)).toEqual([...Array(11).fill(200), 201]);
    expect(new Set(responses.map(({ body }) => body.id)).size).toBe(1);
    expect(responses.filter(({ body }) => 'secret' in body)).toHaveLength(1);
    const reordered = await person.call('POST /v1/tokens', {
      body: { metadata: { b: '2', a: '1' }, name: 'once' },
      headers,
    });
    expect(reordered.status).toBe(200);
    const conflict = await person.call('POST /v1/tokens', { body: { name: 'another' }, headers });
    expect(conflict.status).toBe(409);
    expect(conflict.body['code']).toBe('idempotency_conflict');
    const stranger = await w.member();
    expect((await stranger.call('POST /v1/tokens', send)).status).toBe(201);
  });

  test('a rejected request leaves its Idempotency-Key free', async () => {
    const headers = { 'idempotency-key': 'refused-first' };
    expect(
      (await person.call('POST /v1/tokens', { body: { name: 'x', scopes: ['users:write'] }, headers })).status,
    ).toBe(403);
    expect((await person.call('POST /v1/tokens', { body: { name: 'x' }, headers })).status).toBe(201);
  });
});

test('of concurrent rotations of a token one succeeds', async () => {
  const { id } = await issue(person);
  const responses = await Promise.all(
    Array.from({ length: 8 }, (_, i) =>
      (i % 2 ? person : elsewhere()).call(`POST /v1/tokens/${id}/rotate`, { body: { overlapSeconds: 60 } }),
    ),
  );
  expect(statuses(responses)).toEqual([201, ...Array(7).fill(409)]);
  expect(await w.database.query('SELECT 1 FROM tokens WHERE rotated_from = $1', [id])).toHaveLength(1);
});

test('nothing stays valid that a token is shown while it is revoked as exposed', async () => {
  for (let round = 0; round < 6; round++) {
    const scopes = ['tokens:read', 'tokens:write'];
    const { id, secret } = await issue(person, { scopes });
    const siblings = await Promise.all(Array.from({ length: 4 }, () => issue(person, { scopes })));
    const thieves = [w.bearer(secret), w.bearer(secret, second)];
    const stealing = siblings.map(async (sibling, i) => {
      const rotated = await thieves[i % 2]!.call<IssuedToken>(`POST /v1/tokens/${sibling.id}/rotate`, {
        body: { overlapSeconds: 600 },
      });
      if (rotated.status !== 201) return [rotated];
      const accomplice = w.bearer(rotated.body.secret, i % 2 ? second : undefined);
      return [
        rotated,
        await accomplice.call<IssuedToken>('POST /v1/tokens/self/rotate', { body: { overlapSeconds: 60 } }),
      ];
    });
    const own = thieves[1]!.call<IssuedToken>('POST /v1/tokens/self/rotate', { body: { overlapSeconds: 600 } });
    await sleep(round * 5);
    const revoked = await elsewhere().call(`POST /v1/tokens/${id}/revoke`, { body: { reason: 'exposed' } });
    expect(revoked.status).toBe(200);
    const responses = [...(await Promise.all(stealing)).flat(), await own];
    for (const shown of responses) {
      // 403: it has rotated itself, so it has an expiry, and its sibling has none.
      expect([201, 401, 403]).toContain(shown.status);
      if (shown.status === 201) expect((await w.bearer(shown.body.secret).call('/v1/tokens/self')).status).toBe(401);
    }
  }
});

test('issuing with a token while it is revoked fails, or the new token is revoked with it', async () => {
  for (let round = 0; round < 6; round++) {
    const parent = await issue(person, { scopes: ['tokens:write'] });
    const creators = [w.bearer(parent.secret), w.bearer(parent.secret, second)];
    const making = Array.from({ length: 6 }, async (_, i) => {
      await sleep(i * 2);
      return creators[i % 2]!.call<IssuedToken>('POST /v1/tokens', { body: { name: 'child' } });
    });
    await sleep(round * 2);
    const revoking = await person.call(`POST /v1/tokens/${parent.id}/revoke`);
    expect(revoking.status).toBe(200);
    for (const made of await Promise.all(making)) {
      expect([201, 401]).toContain(made.status);
      if (made.status === 201) expect((await w.bearer(made.body.secret).call('/v1/tokens/self')).status).toBe(401);
    }
    const active = await w.database.query('SELECT 1 FROM tokens WHERE ancestors @> $1 AND revoked_at IS NULL', [
      [parent.id],
    ]);
    expect(active).toEqual([]);
  }
});

test('two tokens that revoke each other at once do not deadlock', async () => {
  const pairs = await Promise.all(
    Array.from({ length: 5 }, () =>
      Promise.all([issue(person, { scopes: ['tokens:write'] }), issue(person, { scopes: ['tokens:write'] })]),
    ),
  );
  for (const [a, b] of pairs) {
    const responses = await Promise.all([
      w.bearer(a.secret).call(`POST /v1/tokens/${b.id}/revoke`),
      w.bearer(b.secret, second).call(`POST /v1/tokens/${a.id}/revoke`),
    ]);
    expect(responses.some(({ status }) => status === 200)).toBe(true);
    for (const { status } of responses) expect([200, 401]).toContain(status);
  }
});

test('a person disabled while they issue has no token that a check accepts', async () => {
  const leaving = await w.member();
  const admin = await w.signIn();
  const [made] = await Promise.all([
    Promise.all(
      Array.from({ length: 6 }, () => leaving.call<IssuedToken>('POST /v1/tokens', { body: { name: 'last' } })),
    ),
    admin.call(`PATCH /v1/users/${leaving.user.id}`, { body: { disabled: true } }),
  ]);
  for (const { status, body } of made)
    if (status === 201) expect((await w.bearer(body.secret).call('/v1/tokens/self')).status).toBe(401);
  expect((await leaving.call('POST /v1/tokens', { body: { name: 'x' } })).status).toBe(401);
});

test('of two administrators who demote each other at once one remains', async () => {
  const fresh = await world();
  try {
    const first = await fresh.signIn();
    const other = await fresh.member('Other', 'admin');
    const responses = await Promise.all([
      first.call(`PATCH /v1/users/${other.user.id}`, { body: { role: 'member' } }),
      other.call(`PATCH /v1/users/${first.user!.id}`, { body: { role: 'member' } }),
    ]);
    expect(responses.filter(({ status }) => status === 200)).toHaveLength(1);
    expect(await fresh.database.query(`SELECT 1 FROM users WHERE role = 'admin'`)).toHaveLength(1);
  } finally {
    await fresh.close();
  }
});

test('of two project owners who remove each other at once one remains', async () => {
  const other = await w.member();
  const at = await project(person);
  await person.call(`PUT /v1/projects/${at}/members/${other.user.id}`, { body: { role: 'owner' } });
  const responses = await Promise.all([
    person.call(`DELETE /v1/projects/${at}/members/${other.user.id}`),
    other.call(`DELETE /v1/projects/${at}/members/${person.user!.id}`),
  ]);
  expect(responses.filter(({ status }) => status === 200)).toHaveLength(1);
  expect(await w.database.query(`SELECT 1 FROM members WHERE project_id = $1 AND role = 'owner'`, [at])).toHaveLength(
    1,
  );
});

test('pages of tokens neither repeat nor miss a token while others are issued and revoked', async () => {
  const owner = await w.member();
  const before: string[] = [];
  for (let i = 0; i < 3; i++)
    before.push(...(await Promise.all([1, 2, 3, 4].map(() => issue(owner)))).map(({ id }) => id));
  const seen: string[] = [];
  let cursor: string | null = null as string | null;
  do {
    const { body }: ApiResponse<Page<Token>> = await owner.call<Page<Token>>('/v1/tokens', {
      query: { limit: '5', ...(cursor && { cursor }) },
    });
    seen.push(...body.items.map(({ id }) => id));
    cursor = body.nextCursor;
    await issue(owner);
    await owner.call(`DELETE /v1/tokens/${before[seen.length % before.length]}`);
  } while (cursor);
  expect(seen.sort()).toEqual(before.sort());
});
