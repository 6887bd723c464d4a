import { hash } from 'node:crypto';
import type { AuditEvent, Policy, Token } from '@latchkey/contracts';
import { firstParty, maintenanceCaller } from '@latchkey/runtime';
import { mint, startOf } from '@latchkey/token-format';
import { issue, JOBS_RPC_SECRET, type Person, project, type World, world } from './harness.js';

const NONE: Policy = { lifetimeSecondsMax: null, expiryRequired: false, allowedIpPrefixes: [], idleDays: null };
const DAY = 86_400;
let w: World;
let admin: Person;
beforeAll(async () => {
  w = await world();
  admin = await w.signIn();
});
afterAll(() => w.close());

const put = (policy: Partial<Policy>, by = admin) =>
  by.call<Policy>('PUT /v1/policy', { body: { ...NONE, ...policy } });
const tryToIssue = (person: Person, body: object) =>
  person.call<Token & { errors: { field: string }[] }>('POST /v1/tokens', { body: { name: 'a', ...body } });
const fields = (response: { body: { errors?: { field: string }[] } }) =>
  response.body.errors?.map(({ field }) => field);

describe('the policy', () => {
  afterEach(() => put({}));

  it('the policy is set by administrators only, visible to everyone, and its changes are audited', async () => {
    const member = await w.member();
    expect((await put({ idleDays: 3 }, member)).status).toBe(403);
    const set = await put({ lifetimeSecondsMax: DAY, allowedIpPrefixes: ['10.1.2.3/8'] });
    expect(set.body).toEqual({ ...NONE, lifetimeSecondsMax: DAY, allowedIpPrefixes: ['10.0.0.0/8'] });
    expect((await member.call('/v1/policy')).body).toEqual(set.body);
    const { body } = await admin.call<{ items: AuditEvent[] }>('/v1/audit?action=policy.updated&limit=1');
    expect(body.items[0]?.details).toMatchObject({ from: NONE, to: set.body });
    expect(
      fields(await admin.call('PUT /v1/policy', { body: { ...NONE, allowedIpPrefixes: ['10.0.0.0/99'] } })),
    ).toEqual(['allowedIpPrefixes.0']);
  });

  it('the policy bounds the lifetime of issued tokens', async () => {
    const member = await w.member();
    await put({ lifetimeSecondsMax: DAY });
    expect(fields(await tryToIssue(member, {}))).toEqual(['expiresAt']);
    expect(fields(await tryToIssue(member, { expiresInSeconds: DAY + 60 }))).toEqual(['expiresAt']);
    expect((await tryToIssue(member, { expiresInSeconds: DAY })).status).toBe(201);
    await put({ expiryRequired: true });
    expect(fields(await tryToIssue(member, {}))).toEqual(['expiresAt']);
    expect((await tryToIssue(member, { expiresInSeconds: 400 * DAY })).status).toBe(201);
  });

  it('the policy shortens the lifetime of the successor of an older token', async () => {
    const member = await w.member();
    const old = await issue(member, { expiresInSeconds: 400 * DAY });
    await put({ lifetimeSecondsMax: DAY });
    const rotated = await w.bearer(old.secret).call<Token>('POST /v1/tokens/self/rotate');
    expect(rotated.status).toBe(201);
    const lifetimeMs = Date.parse(rotated.body.expiresAt!) - Date.parse(rotated.body.createdAt);
    expect(lifetimeMs).toBe(DAY * 1_000);
  });

  it('the policy requires address bounds when issuing and when changing', async () => {
    const member = await w.member();
    await put({ allowedIpPrefixes: ['10.0.0.0/8', '2001:db8::/32'] });
    expect(fields(await tryToIssue(member, {}))).toEqual(['allowedIps']);
    expect(fields(await tryToIssue(member, { allowedIps: ['10.1.0.0/16', '11.0.0.1'] }))).toEqual(['allowedIps']);
    const made = await tryToIssue(member, { allowedIps: ['10.1.0.0/16', '2001:db8::1'] });
    expect(made.status).toBe(201);
    const patch = (allowedIps: string[]) => member.call(`PATCH /v1/tokens/${made.body.id}`, { body: { allowedIps } });
    expect(fields((await patch([])) as never)).toEqual(['allowedIps']);
    expect((await patch(['10.2.0.0/16'])).status).toBe(200);
  });

  it('the policy revokes tokens unused for longer than it allows, and no others', async () => {
    const member = await w.member();
    const [idle, used, young] = [await issue(member), await issue(member), await issue(member)];
    const age = (ids: string[]) =>
      w.database.query(`UPDATE tokens SET created_at = now() - interval '40 days' WHERE id = ANY ($1)`, [ids]);
    await age([idle.id, used.id]);
    await w.database.query(
      `INSERT INTO token_usage (token_id, last_used_at, usage_count) VALUES ($1, now() - interval '29 days', 1)`,
      [used.id],
    );
    const maintenance = maintenanceCaller({
      address: w.service.rpcAddress,
      authorization: firstParty(JOBS_RPC_SECRET),
    });
    try {
      expect(await maintenance.revokeIdle({ limit: 100 })).toEqual({ done: 0, more: false });
      await put({ idleDays: 30 });
      expect(await maintenance.revokeIdle({ limit: 100 })).toEqual({ done: 1, more: false });
    } finally {
      maintenance.close();
    }
    const read = async (id: string) => (await member.call<Token>(`/v1/tokens/${id}`)).body;
    expect(await read(idle.id)).toMatchObject({ status: 'revoked', revocationReason: 'policy' });
    expect([(await read(used.id)).status, (await read(young.id)).status]).toEqual(['active', 'active']);
  });
});

describe('import', () => {
  const minted = (kind: 'pat' | 'prj', more: object = {}) => {
    const secret = mint(kind);
    return {
      secret,
      entry: { sha256: hash('sha256', secret, 'hex'), start: startOf(secret), name: 'moved here', ...more },
    };
  };
  const importTokens = (by: Person, tokens: object[], projectId?: string) =>
    by.call<{ imported: number; tokens: { id: string }[]; detail: string }>('POST /v1/tokens/import', {
      body: { tokens, ...(projectId && { projectId }) },
    });

  it('imported secrets are accepted at once, also when they were looked up before', async () => {
    const member = await w.member();
    const { secret, entry } = minted('pat', { scopes: ['tokens:read'], expiresAt: '2090-01-01T00:00:00Z' });
    expect((await w.bearer(secret).call('/v1/tokens/self')).status).toBe(401);
    expect((await importTokens(member, [entry])).body.imported).toBe(1);
    const self = await w.bearer(secret).call<Token>('/v1/tokens/self');
    expect(self.body).toMatchObject({
      name: 'moved here',
      start: entry.start,
      scopes: ['tokens:read'],
      expiresAt: '2090-01-01T00:00:00.000Z',
      owner: { type: 'user', id: member.user.id },
    });
    const [row] = await w.database.query<{ text: string }>('SELECT t::text AS text FROM tokens t WHERE id = $1', [
      self.body.id,
    ]);
    expect(row!.text).not.toContain(entry.sha256);
  });

  it('an import takes all tokens or none, and none twice', async () => {
    const member = await w.member();
    const [first, second] = [minted('pat'), minted('pat')];
    expect((await importTokens(member, [first.entry])).status).toBe(201);
    expect((await importTokens(member, [second.entry, first.entry])).status).toBe(409);
    expect((await w.bearer(second.secret).call('/v1/tokens/self')).status).toBe(401);
    expect(fields((await importTokens(member, [second.entry, second.entry])) as never)).toEqual(['tokens.1.sha256']);
    const [one, other] = await Promise.all([
      importTokens(member, [second.entry]),
      importTokens(member, [second.entry]),
    ]);
    expect([one.status, other.status].sort()).toEqual([201, 409]);
  });

  it('an import grants no one more than issuing would', async () => {
    const [member, outsider] = [await w.member(), await w.member()];
    const projectId = await project(member);
    expect((await importTokens(outsider, [minted('prj').entry], projectId)).status).toBe(404);
    expect((await importTokens(member, [minted('pat', { scopes: ['tokens:verify'] }).entry])).status).toBe(403);
    expect((await importTokens(member, [minted('prj', { scopes: ['users:write'] }).entry], projectId)).status).toBe(
      403,
    );
    expect(fields((await importTokens(member, [minted('pat').entry], projectId)) as never)).toEqual(['tokens.0.start']);
    const past = [minted('pat').entry, minted('pat', { expiresAt: '2020-01-01T00:00:00Z' }).entry];
    expect(fields((await importTokens(member, past)) as never)).toEqual(['tokens.1.expiresAt']);
    const narrow = await issue(member, { scopes: ['tokens:write'], expiresInSeconds: DAY });
    const bearer = w.bearer(narrow.secret);
    expect((await importTokens(bearer, [minted('pat', { scopes: ['tokens:read'] }).entry])).status).toBe(403);
    expect((await importTokens(bearer, [minted('pat').entry])).status).toBe(403);
    const child = minted('pat', { expiresAt: new Date(Date.now() + 3_600_000).toISOString() });
    expect((await importTokens(bearer, [child.entry])).status).toBe(201);
    await member.call(`DELETE /v1/tokens/${narrow.id}`);
    expect((await w.bearer(child.secret).call('/v1/tokens/self')).status).toBe(401);
  });

  it('an import takes a thousand tokens in one request', async () => {
    const member = await w.member();
    const many = Array.from({ length: 1_000 }, () => minted('pat').entry);
    const { status, body } = await importTokens(member, many);
    expect([status, body.imported, body.tokens.length]).toEqual([201, 1_000, 1_000]);
  });
});

it('a start with other declared scopes than before invalidates everything', async () => {
  const everything = () => w.database.query(`SELECT 1 FROM invalidations WHERE kind = 'everything'`);
  const before = (await everything()).length;
  await w.another();
  expect(await everything()).toHaveLength(before);
  await w.another({ SCOPES_FILE: new URL('../../../infra/scopes.yaml', import.meta.url).pathname });
  expect(await everything()).toHaveLength(before + 1);
});
