import type { IssuedToken, Token, TokenEffect } from '@latchkey/contracts';
import { waitFor } from '@latchkey/testing';
import { issue, project, type World, world } from './harness.js';

let w: World;
beforeAll(async () => {
  w = await world();
});
afterAll(() => w.close());

describe('issuing', () => {
  test('issuing returns the secret once, and only the record from then on', async () => {
    const person = await w.member('Ada');
    const issued = await issue(person, {
      name: 'ci',
      scopes: ['tokens:read'],
      metadata: { team: 'core' },
      expiresInSeconds: 3600,
    });
    expect(issued.secret).toMatch(/^lk_pat_[0-9A-Za-z]{36}$/);
    const { secret, ...record } = issued;
    expect(record).toMatchObject({
      name: 'ci',
      description: '',
      kind: 'pat',
      scopes: ['tokens:read'],
      status: 'active',
      start: secret.slice(0, 11),
      owner: { type: 'user', id: person.user.id, name: 'Ada', disabled: false },
      createdBy: { type: 'user', id: person.user.id, name: 'Ada' },
      lastUsedAt: null,
      usageCount: 0,
      revokedAt: null,
      rotatedFrom: null,
      rotatedTo: null,
      allowedIps: [],
      rateLimit: null,
      metadata: { team: 'core' },
      parentId: null,
      receipt: null,
    });
    const read = await person.call<Token>(`/v1/tokens/${issued.id}`);
    expect(read.body).toEqual(record);
  });

  test('a token is accepted until its revocation has returned, and never after', async () => {
    const person = await w.member();
    const issued = await issue(person, { scopes: ['tokens:read'] });
    const bearer = w.bearer(issued.secret);
    expect((await bearer.call<Token>('/v1/tokens/self')).body.id).toBe(issued.id);
    const revoked = await person.call<TokenEffect>(`POST /v1/tokens/${issued.id}/revoke`, {
      body: { reason: 'no_longer_needed' },
    });
    expect(revoked.status).toBe(200);
    expect(revoked.body).toMatchObject({
      effective: true,
      token: { status: 'revoked', revocationReason: 'no_longer_needed', revokedBy: { id: person.user.id } },
    });
    const refused = await bearer.call('/v1/tokens/self');
    expect(refused.status).toBe(401);
    expect(refused.headers.get('www-authenticate')).toMatch(/^Bearer realm="latchkey", error="invalid_token"/);
    // The receipt is stored after the response; a repeat before that would have its own.
    await waitFor(async () => (await person.call<Token>(`GET /v1/tokens/${issued.id}`)).body.receipt);
    const again = await person.call<TokenEffect>(`DELETE /v1/tokens/${issued.id}`);
    expect(again.body).toMatchObject({ effective: true, receipt: revoked.body.receipt });
    expect(again.body.token).toEqual(revoked.body.token);
  });

  test('rotating revokes the old token and issues its successor; a second rotation is rejected', async () => {
    const person = await w.member();
    const old = await issue(person, { scopes: ['tokens:read'], allowedIps: ['127.0.0.0/8'], metadata: { a: 'b' } });
    const rotated = await person.call<IssuedToken>(`POST /v1/tokens/${old.id}/rotate`);
    expect(rotated.status).toBe(201);
    expect(rotated.body).toMatchObject({
      rotatedFrom: old.id,
      scopes: old.scopes,
      allowedIps: old.allowedIps,
      metadata: old.metadata,
      expiresAt: null,
    });
    expect((await w.bearer(old.secret).call('/v1/tokens/self')).status).toBe(401);
    expect((await w.bearer(rotated.body.secret).call('/v1/tokens/self')).status).toBe(200);
    expect((await person.call(`POST /v1/tokens/${old.id}/rotate`)).status).toBe(409);
    expect((await person.call<Token>(`/v1/tokens/${old.id}`)).body).toMatchObject({
      status: 'revoked',
      rotatedTo: rotated.body.id,
      revocationReason: 'superseded',
    });
  });
});

test('issuing returns the record as it is read afterwards', async () => {
  const person = await w.member();
  const at = await project(person);
  const bounds = {
    allowedIps: ['127.0.0.1', '::1'],
    rateLimit: { limit: 50, windowSeconds: 60 },
    metadata: { team: 'a' },
  };
  const parent = await issue(person, { scopes: ['tokens:write', 'tokens:read'], expiresInSeconds: 3_600, ...bounds });
  const ofProject = { kind: 'prj', projectId: at, scopes: ['tokens:write', 'tokens:read'] };
  const made = [
    parent,
    await issue(person),
    await issue(person, ofProject),
    await issue(w.bearer(parent.secret), { ...bounds, expiresInSeconds: 60, description: 'a child' }),
    await issue(w.bearer((await issue(person, ofProject)).secret), { ...ofProject, scopes: [] }),
    await issue(w.bearer((await issue(person, { scopes: ofProject.scopes })).secret), ofProject),
  ];
  for (const { secret, ...issued } of made) {
    expect(secret).toMatch(/^lk_/);
    const {
      lastUsedAt: _,
      lastUsedIp: __,
      usageCount: ___,
      ...read
    } = (await person.call<Token>(`/v1/tokens/${issued.id}`)).body;
    expect(issued).toMatchObject(read);
  }
});
