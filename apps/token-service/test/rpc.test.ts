import { status } from '@grpc/grpc-js';
import type { MaintenanceMethods, TokensMethods } from '@latchkey/contracts';
import { bearer, type Caller, firstParty, maintenanceCaller, tokensCaller } from '@latchkey/runtime';
import { hashSecret } from '@latchkey/token-format';
import { GATEWAY_RPC_SECRET, issue, JOBS_RPC_SECRET, type Person, project, type World, world } from './harness.js';

let w: World;
let admin: Person;
let own: Caller<TokensMethods>;
let maintenance: Caller<MaintenanceMethods>;
const callers: { close(): void }[] = [];
const callAs = (authorization: string) => {
  const caller = tokensCaller({ address: w.service.rpcAddress, authorization, timeoutMs: 10_000 });
  callers.push(caller);
  return caller;
};
const EMPTY_REQUEST = { scopes: [], project: '', ip: '', route: '', userAgent: '' };

beforeAll(async () => {
  w = await world();
  admin = await w.signIn();
  own = callAs(firstParty(GATEWAY_RPC_SECRET));
  maintenance = maintenanceCaller({
    address: w.service.rpcAddress,
    authorization: firstParty(JOBS_RPC_SECRET),
    timeoutMs: 10_000,
  });
  callers.push(maintenance);
});
afterAll(async () => {
  for (const caller of callers) caller.close();
  await w.close();
});

describe('who may call', () => {
  test.each([
    '',
    'Bearer',
    'Latchkey wrong',
    `Basic ${GATEWAY_RPC_SECRET}`,
    `Bearer lk_pat_${'0'.repeat(36)}`,
    'Bearer a b',
  ])('the authorization %p is rejected over gRPC', async (authorization) => {
    await expect(callAs(authorization).verify({ ...EMPTY_REQUEST, token: 'x' })).rejects.toMatchObject({
      code: status.UNAUTHENTICATED,
    });
  });

  test('a token needs tokens:verify over gRPC, which only administrators grant', async () => {
    const member = await w.member();
    const plain = await issue(member, { scopes: ['tokens:read'] });
    await expect(callAs(bearer(plain.secret)).verify({ ...EMPTY_REQUEST, token: 'x' })).rejects.toMatchObject({
      code: status.PERMISSION_DENIED,
    });
    expect((await member.call('POST /v1/tokens', { body: { name: 'v', scopes: ['tokens:verify'] } })).status).toBe(403);
    const verifying = await issue(admin, { scopes: ['tokens:verify'] });
    expect(await callAs(bearer(verifying.secret)).verify({ ...EMPTY_REQUEST, token: plain.secret })).toMatchObject({
      allowed: true,
    });
  });

  test('a token is accepted over gRPC only from the addresses that it allows', async () => {
    const near = await issue(admin, { scopes: ['tokens:verify'], allowedIps: ['127.0.0.0/8'] });
    const far = await issue(admin, { scopes: ['tokens:verify'], allowedIps: ['203.0.113.0/24'] });
    expect(await callAs(bearer(near.secret)).verify({ ...EMPTY_REQUEST, token: 'x' })).toMatchObject({
      denial: 'malformed',
    });
    await expect(callAs(bearer(far.secret)).verify({ ...EMPTY_REQUEST, token: 'x' })).rejects.toMatchObject({
      code: status.PERMISSION_DENIED,
    });
  });

  test('maintenance calls are for first-party services only', async () => {
    const verifying = await issue(admin, { scopes: ['tokens:verify'] });
    const caller = maintenanceCaller({ address: w.service.rpcAddress, authorization: bearer(verifying.secret) });
    callers.push(caller);
    await expect(caller.expireDue({ limit: 1 })).rejects.toMatchObject({ code: status.PERMISSION_DENIED });
  });
});

describe('Lookup', () => {
  test("Lookup returns a personal token's scopes outside and in each of its owner's projects", async () => {
    const owner = await w.member();
    const viewer = await w.member();
    const at = await project(owner);
    await owner.call(`PUT /v1/projects/${at}/members/${viewer.user.id}`, { body: { role: 'viewer' } });
    const ownProject = await project(viewer);
    const token = await issue(viewer, { scopes: ['demo:read', 'demo:write'] });
    const { known, token: snapshot } = await own.lookup({ hash: hashSecret(token.secret) });
    expect(known).toBe(true);
    expect(snapshot).toMatchObject({
      id: token.id,
      kind: 'pat',
      ownerType: 'user',
      ownerId: viewer.user.id,
      denial: '',
      expiresAtMs: 0,
      scopes: ['demo:read'],
      allProjects: false,
    });
    expect(new Map(snapshot!.grants.map((grant) => [grant.project, grant.scopes]))).toEqual(
      new Map([
        [at, ['demo:read']],
        [ownProject, ['demo:read', 'demo:write']],
      ]),
    );
  });

  test('Lookup returns an unknown hash as not known, and rejects an invalid hash', async () => {
    expect(await own.lookup({ hash: hashSecret('unknown secret') })).toMatchObject({ known: false, token: null });
    await expect(own.lookup({ hash: 'short' })).rejects.toMatchObject({ code: status.INVALID_ARGUMENT });
  });
});

describe('Verify', () => {
  test('Verify returns the reason of a denial, and the principal when allowed', async () => {
    const person = await w.member();
    const other = await w.member();
    const at = await project(person);
    const elsewhere = await project(other);
    const token = await issue(person, { scopes: ['demo:read'], allowedIps: ['10.0.0.0/8'] });
    const verify = (more: object) => own.verify({ ...EMPTY_REQUEST, token: token.secret, ...more });
    expect(await verify({ scopes: ['demo:read'], project: at, ip: '10.1.2.3' })).toEqual({
      allowed: true,
      denial: '',
      tokenId: token.id,
      owner: `user:${person.user.id}`,
      project: '',
      scopes: ['demo:read'],
      expiresAt: '',
      requestId: '',
      retryAfterSeconds: 0,
    });
    expect(await verify({ ip: '11.1.2.3' })).toMatchObject({
      allowed: false,
      denial: 'address_not_allowed',
      tokenId: token.id,
    });
    expect(await verify({ project: elsewhere })).toMatchObject({ denial: 'wrong_project' });
    expect(await verify({ project: at, scopes: ['demo:write'] })).toMatchObject({ denial: 'insufficient_scope' });
    expect(await verify({ token: 'rubbish' })).toMatchObject({ denial: 'malformed', tokenId: '' });
    expect(
      await verify({ token: `${token.secret.slice(0, -1)}${token.secret.endsWith('0') ? '1' : '0'}` }),
    ).toMatchObject({ denial: 'bad_checksum' });
    await person.call(`PATCH /v1/tokens/${token.id}`, { body: { disabled: true } });
    expect(await verify({})).toMatchObject({ denial: 'disabled' });
    await person.call(`POST /v1/tokens/${token.id}/revoke`);
    const { responses } = await own.verifyBatch({
      requests: [
        { ...EMPTY_REQUEST, token: token.secret },
        { ...EMPTY_REQUEST, token: 'rubbish' },
      ],
    });
    expect(responses.map(({ denial }) => denial)).toEqual(['revoked', 'malformed']);
  });

  test("a token's rate limit is one count over HTTP and gRPC", async () => {
    const person = await w.member();
    const token = await issue(person, { rateLimit: { limit: 3, windowSeconds: 3600 } });
    expect(await own.verify({ ...EMPTY_REQUEST, token: token.secret })).toMatchObject({ allowed: true });
    expect((await w.bearer(token.secret).call('/v1/tokens/self')).status).toBe(200);
    expect(await own.verify({ ...EMPTY_REQUEST, token: token.secret })).toMatchObject({ allowed: true });
    const limited = await own.verify({ ...EMPTY_REQUEST, token: token.secret });
    expect(limited).toMatchObject({ allowed: false, denial: 'rate_limited', tokenId: token.id });
    expect(limited.retryAfterSeconds).toBeGreaterThan(3_500);
    const response = await w.bearer(token.secret).call('/v1/tokens/self');
    expect(response.status).toBe(429);
    expect(response.headers.get('ratelimit')).toMatch(/^"token";r=0;t=\d+$/);
  });

  test('VerifyBatch rejects more than a hundred requests', async () => {
    const requests = Array.from({ length: 101 }, () => ({ ...EMPTY_REQUEST, token: 'x' }));
    await expect(own.verifyBatch({ requests })).rejects.toMatchObject({ code: status.INVALID_ARGUMENT });
  });
});

describe('maintenance', () => {
  test('ExpireDue records each expiry once, in bounded batches, with its audit event', async () => {
    const person = await w.member();
    const tokens = await Promise.all([1, 2, 3].map(() => issue(person, { expiresInSeconds: 3600 })));
    await w.database.query(`UPDATE tokens SET expires_at = now() - interval '1 second' WHERE id = ANY ($1)`, [
      tokens.map(({ id }) => id),
    ]);
    const runs = await Promise.all([maintenance.expireDue({ limit: 2 }), maintenance.expireDue({ limit: 2 })]);
    expect(runs.reduce((sum, run) => sum + run.done, 0)).toBe(3);
    expect(await maintenance.expireDue({ limit: 2 })).toEqual({ done: 0, more: false });
    const events = await w.database.query(
      `SELECT token_id, actor_type FROM audit_events WHERE action = 'token.expired' AND token_id = ANY ($1)`,
      [tokens.map(({ id }) => id)],
    );
    expect(events.length).toBe(3);
    expect(new Set(events.map((event) => event['actor_type']))).toEqual(new Set(['system']));
  });

  test('EndOverlaps revokes a token as superseded after its overlap, and not before', async () => {
    const person = await w.member();
    const old = await issue(person);
    await person.call(`POST /v1/tokens/${old.id}/rotate`, { body: { overlapSeconds: 600 } });
    expect(await maintenance.endOverlaps({ limit: 10 })).toEqual({ done: 0, more: false });
    expect(await own.verify({ ...EMPTY_REQUEST, token: old.secret })).toMatchObject({ allowed: true });
    await w.database.query(`UPDATE tokens SET overlap_ends_at = now() - interval '1 second' WHERE id = $1`, [old.id]);
    expect(await own.verify({ ...EMPTY_REQUEST, token: old.secret })).toMatchObject({ denial: 'expired' });
    expect(await maintenance.endOverlaps({ limit: 10 })).toEqual({ done: 1, more: false });
    expect((await person.call(`/v1/tokens/${old.id}`)).body).toMatchObject({
      status: 'revoked',
      revocationReason: 'superseded',
      revokedBy: { type: 'system' },
    });
  });
});
