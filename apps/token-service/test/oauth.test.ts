import type { IssuedToken, Token } from '@latchkey/contracts';
import { waitFor } from '@latchkey/testing';
import { issue, type Person, project, type World, world } from './harness.js';

let w: World;
let admin: Person;
let resourceServer: Person;
let person: Person & { user: { id: string } };
beforeAll(async () => {
  w = await world({ env: { PUBLIC_URL: 'https://latchkey.example' } });
  admin = await w.signIn();
  resourceServer = w.bearer((await issue(admin, { scopes: ['tokens:verify'] })).secret);
  person = await w.member('Grace');
});
afterAll(() => w.close());

const form = (fields: Record<string, string>) => ({
  raw: new URLSearchParams(fields).toString(),
  headers: { 'content-type': 'application/x-www-form-urlencoded' },
});
const status = async (id: string) => (await person.call<Token>(`/v1/tokens/${id}`)).body.status;

describe('introspection (RFC 7662)', () => {
  test('introspection of an active token returns its owner, scopes and expiry', async () => {
    const token = await issue(person, { scopes: ['demo:read', 'tokens:read'], expiresInSeconds: 3600 });
    const response = await resourceServer.call(
      'POST /oauth2/introspect',
      form({ token: token.secret, token_type_hint: 'access_token' }),
    );
    expect(response.status).toBe(200);
    expect(response.body).toEqual({
      active: true,
      scope: 'demo:read tokens:read',
      client_id: `user:${person.user.id}`,
      username: 'Grace',
      token_type: 'Bearer',
      exp: Math.floor(Date.parse(token.expiresAt!) / 1000),
      iat: Math.floor(Date.parse(token.createdAt) / 1000),
      sub: `user:${person.user.id}`,
      iss: 'https://latchkey.example',
      jti: token.id,
    });
  });

  test('introspection of any other string returns that it is not active, and nothing else', async () => {
    const revoked = await issue(person);
    await person.call(`POST /v1/tokens/${revoked.id}/revoke`);
    for (const token of [revoked.secret, 'rubbish', `lk_pat_${'0'.repeat(36)}`])
      expect((await resourceServer.call('POST /oauth2/introspect', form({ token }))).body).toEqual({ active: false });
  });

  test('introspection requires tokens:verify, a form, and one token', async () => {
    const plain = w.bearer((await issue(person, { scopes: ['tokens:read'] })).secret);
    expect((await plain.call('POST /oauth2/introspect', form({ token: 'x' }))).status).toBe(403);
    expect((await w.as().call('POST /oauth2/introspect', form({ token: 'x' }))).status).toBe(401);
    expect((await person.call('POST /oauth2/introspect', form({ token: 'x' }))).status).toBe(403);
    expect((await resourceServer.call('POST /oauth2/introspect', { body: { token: 'x' } })).status).toBe(415);
    expect((await resourceServer.call('POST /oauth2/introspect', form({}))).status).toBe(400);
    const twice = { ...form({}), raw: 'token=a&token=b' };
    expect((await resourceServer.call('POST /oauth2/introspect', twice)).status).toBe(400);
  });

  test.each(['introspect', 'revoke'])(
    '/oauth2/%s ignores parameters that it does not know, but no repeated ones',
    async (what) => {
      const target = `POST /oauth2/${what}`;
      expect((await resourceServer.call(target, form({ token: 'x', client_id: 'x', resource: 'y' }))).status).toBe(200);
      const twice = { ...form({}), raw: 'token=a&client_id=b&client_id=c' };
      expect((await resourceServer.call(target, twice)).status).toBe(400);
    },
  );

  test('errors have the member that RFC 6749 section 5.2 and RFC 6750 section 3.1 give them', async () => {
    const plain = w.bearer((await issue(person, { scopes: ['tokens:read'] })).secret);
    const errorTo = async (caller: Person, given: object) =>
      (await caller.call<{ error?: string }>('POST /oauth2/introspect', given)).body.error;
    expect(await errorTo(resourceServer, form({}))).toBe('invalid_request');
    expect(await errorTo(w.as(), form({ token: 'x' }))).toBe('invalid_client');
    expect(await errorTo(w.bearer('rubbish'), form({ token: 'x' }))).toBe('invalid_token');
    expect(await errorTo(plain, form({ token: 'x' }))).toBe('insufficient_scope');
    expect((await resourceServer.call('GET /v1/nothing')).body).not.toHaveProperty('error');
  });
});

describe('revocation (RFC 7009)', () => {
  test('an RFC 7009 revocation is effective when it returns, and returns the same for a string that is no token', async () => {
    const token = await issue(person);
    const forms = [token.secret, token.secret, 'rubbish'].map((one) => form({ token: one }));
    for (const send of forms) {
      const response = await resourceServer.call('POST /oauth2/revoke', send);
      expect([response.status, response.text]).toEqual([200, '']);
      expect((await w.bearer(token.secret).call('/v1/tokens/self')).status).toBe(401);
    }
  });

  test('an RFC 7009 revocation requires tokens:verify', async () => {
    const token = await issue(person);
    expect((await person.call('POST /oauth2/revoke', form({ token: token.secret }))).status).toBe(403);
    expect(await status(token.id)).toBe('active');
  });
});

describe('exposed secrets', () => {
  const expose = (tokens: string[], from = w.as()) => from.call('POST /v1/tokens/revoke-exposed', { body: { tokens } });

  test('reported tokens are revoked with all that they were shown, and the response does not show which existed', async () => {
    const old = await issue(person, { scopes: ['tokens:write'] });
    const child = (await w.bearer(old.secret).call<IssuedToken>('POST /v1/tokens', { body: { name: 'child' } })).body;
    const next = (
      await w.bearer(old.secret).call<IssuedToken>('POST /v1/tokens/self/rotate', { body: { overlapSeconds: 600 } })
    ).body;
    const grandchild = (
      await w.bearer(next.secret).call<IssuedToken>('POST /v1/tokens', { body: { name: 'grandchild' } })
    ).body;
    const bystander = await issue(person);
    const found = await expose([old.secret, 'rubbish']);
    expect(await status(old.id)).toBe('revoked');
    const nothing = await expose(['rubbish', `lk_pat_${'0'.repeat(36)}`]);
    expect([found.status, found.body]).toEqual([202, { accepted: 2 }]);
    expect([nothing.status, nothing.body]).toEqual([202, { accepted: 2 }]);
    for (const { id } of [child, next, grandchild]) await waitFor(async () => (await status(id)) === 'revoked');
    expect(await status(bystander.id)).toBe('active');
    expect((await person.call<Token>(`/v1/tokens/${old.id}`)).body).toMatchObject({
      revocationReason: 'exposed',
      revokedBy: { type: 'system', name: 'system' },
    });
  });

  test('reporting a token that was revoked before revokes no active token', async () => {
    const old = await issue(person);
    const next = (await w.bearer(old.secret).call<IssuedToken>('POST /v1/tokens/self/rotate')).body;
    await expose([old.secret]);
    expect(await status(old.id)).toBe('revoked');
    expect((await w.bearer(next.secret).call('/v1/tokens/self')).status).toBe(200);
    await expose([old.secret]);
    // Once a day, so that the holder of an old secret cannot flood its owner.
    const reported = await w.database.query(
      `SELECT details FROM audit_events WHERE token_id = $1 AND action = 'token.reported'`,
      [old.id],
    );
    expect(reported).toEqual([{ details: { rotatedTo: next.id } }]);
    // Its owner, signed in, can still revoke what it was shown.
    await person.call(`POST /v1/tokens/${old.id}/revoke`, { body: { reason: 'exposed' } });
    expect((await w.bearer(next.secret).call('/v1/tokens/self')).status).toBe(401);
  });

  test('a report of more than a thousand tokens is rejected', async () => {
    expect((await expose(Array.from({ length: 1001 }, () => 'x'))).status).toBe(400);
  });

  test('reports of exposed tokens are rate limited by address', async () => {
    const fresh = await world();
    try {
      const statuses: number[] = [];
      await Promise.all(
        Array.from({ length: 45 }, async () => {
          const response = await fresh.as().call('POST /v1/tokens/revoke-exposed', { body: { tokens: ['rubbish'] } });
          statuses.push(response.status);
          if (response.status === 429) expect(Number(response.headers.get('retry-after'))).toBeGreaterThan(0);
        }),
      );
      // The requests can fall into two windows of a minute.
      expect(statuses.filter((one) => one === 202).length).toBeLessThanOrEqual(40);
      expect(statuses).toContain(429);
    } finally {
      await fresh.close();
    }
  });
});

test('over https the session cookie is host-only and secure', async () => {
  const response = await w
    .as()
    .call('POST /v1/session', { body: { email: 'admin@example.org', password: 'the first administrator' } });
  const [pair, ...attributes] = response.headers.getSetCookie()[0]!.split('; ');
  expect(pair).toMatch(/^__Host-latchkey_session=[\w-]{43}$/);
  expect(attributes.sort()).toEqual(['HttpOnly', 'Max-Age=43200', 'Path=/', 'SameSite=Strict', 'Secure']);
});

test('a state-changing request with a cookie from another site is rejected; a request with a token needs no origin', async () => {
  const send = { body: { name: 'x' } };
  for (const headers of [
    { origin: 'https://evil.example' },
    { origin: 'null' },
    { 'sec-fetch-site': 'same-site' },
  ] as Record<string, string>[]) {
    const response = await person.call('POST /v1/tokens', { ...send, headers });
    expect([response.status, response.body['code']]).toEqual([403, 'cross_site']);
  }
  expect(
    (await person.call('POST /v1/tokens', { ...send, headers: { origin: 'https://latchkey.example' } })).status,
  ).toBe(201);
  const token = await issue(person, { scopes: ['tokens:write'] });
  expect(
    (await w.bearer(token.secret).call('POST /v1/tokens', { ...send, headers: { origin: 'https://evil.example' } }))
      .status,
  ).toBe(201);
  const at = await project(person);
  expect((await person.call(`DELETE /v1/projects/${at}`, { headers: { origin: 'https://evil.example' } })).status).toBe(
    403,
  );
});
