import { hash } from 'node:crypto';
import type { Effect, IssuedToken, Token } from '@latchkey/contracts';
import { bearer, firstParty, maintenanceCaller, tokensCaller } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { hashSecret, mint, startOf } from '@latchkey/token-format';
import type { Verifier } from '@latchkey/verifier';
import type { TokenService } from '../src/app.js';
import { changeSchema } from './database.js';
import { gatewayOf } from './gateway.js';
import { type ApiResponse, issue, JOBS_RPC_SECRET, type Person, project, type World, world } from './harness.js';
import { newClaim } from './invalidation/watching.js';

let w: World;
let admin: Person & { user?: { id: string } };
const closing: (() => Promise<void> | void)[] = [];
beforeAll(async () => {
  w = await world();
  admin = await w.signIn();
});
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
  await w.database.query('DELETE FROM leases');
});
afterAll(() => w.close());

const BODY = { reason: 'policy', confirm: 'revoke everything' };
const revokeAll = (headers: Record<string, string> = {}, by: Person = admin): Promise<ApiResponse<Effect>> =>
  by.call<Effect>('POST /v1/tokens/revoke-all', { body: BODY, headers });
async function effective(by: Person = admin): Promise<Effect> {
  const response = await revokeAll({}, by);
  if (response.status !== 200) throw new Error(`revoking everything failed: ${response.text}`);
  return response.body;
}
const isAccepted = async (secret: string) => (await w.bearer(secret).call('/v1/tokens/self')).status === 200;
const unresponsive = (leaseMs = 400) =>
  w.database.query(
    `INSERT INTO leases (verifier_id, name, caller, renewal, lease_ms, renewed_at)
     VALUES (gen_random_uuid(), 'unresponsive', 'test', pg_current_xact_id(), $1, now())`,
    [leaseMs],
  );
const unmarked = async (): Promise<number> =>
  (
    await w.database.query(
      'SELECT count(*)::int AS n FROM tokens WHERE revoked_at IS NULL AND generation < (SELECT current FROM token_generation)',
    )
  )[0]!['n'];

/** Continues marking as jobs does. Transactions of other databases on the server delay it: marking waits for them. */
async function allMarked(): Promise<boolean> {
  const address = w.service.rpcAddress;
  const replica = maintenanceCaller({ address, authorization: firstParty(JOBS_RPC_SECRET), timeoutMs: 12_000 });
  try {
    await replica.continueExposures({ limit: 10 });
  } finally {
    replica.close();
  }
  return (await unmarked()) === 0;
}

async function gateway(service: TokenService): Promise<Verifier> {
  const { verifier, close } = await gatewayOf(w, service);
  closing.push(close);
  return verifier;
}

describe('after everything is revoked', () => {
  test('after everything is revoked, gateways of every replica reject cached tokens, and their streams are cut', async () => {
    const verifiers = [await gateway(w.service), await gateway(await w.another())];
    const tokens = await Promise.all(Array.from({ length: 5 }, () => issue(admin)));
    const cut: string[] = [];
    for (const verifier of verifiers)
      for (const { secret } of tokens) {
        expect(await verifier.verify(secret, { scopes: [] })).toMatchObject({ allowed: true });
        verifier.watch(secret, { scopes: [] }, { cut: (reason) => cut.push(reason) });
      }
    const fills = verifiers.map(({ counters }) => counters.fills);
    for (const verifier of verifiers) await verifier.verify(tokens[0]!.secret, { scopes: [] });
    expect(verifiers.map(({ counters }) => counters.fills)).toEqual(fills);
    const { receipt } = await effective();
    const seen = verifiers.flatMap((verifier) => tokens.map(({ secret }) => verifier.verify(secret, { scopes: [] })));
    expect((await Promise.all(seen)).map((verdict) => verdict.allowed || verdict.reason)).toEqual(
      Array(10).fill('revoked'),
    );
    expect(cut).toEqual(Array(10).fill('revoked'));
    expect(receipt!.verifiers).toHaveLength(2);
    const { secret } = await issue(admin);
    for (const verifier of verifiers)
      expect(await verifier.verify(secret, { scopes: [] })).toMatchObject({ allowed: true });
  });

  test('after everything is revoked, an old token is accepted nowhere, and nothing is derived from it', async () => {
    const all = { scopes: ['tokens:read', 'tokens:write', 'tokens:verify', 'users:read'] };
    const old = await issue(admin, all);
    const child = await issue(w.bearer(old.secret), { scopes: ['tokens:read'] });
    const disabled = await issue(admin);
    await admin.call(`PATCH /v1/tokens/${disabled.id}`, { body: { disabled: true } });
    const ofProject = await issue(admin, { kind: 'prj', projectId: await project(admin), scopes: ['demo:read'] });
    // No row is marked before the lease of the unresponsive verifier has lapsed.
    await unresponsive(5_000);
    await revokeAll({ prefer: 'wait=0' });
    expect(await unmarked()).toBeGreaterThanOrEqual(4);
    const fresh = await issue(admin, all);

    const by = w.bearer(old.secret);
    const imported = mint('pat');
    const made = { tokens: [{ sha256: hash('sha256', imported, 'hex'), start: startOf(imported), name: 'x' }] };
    const refused = await Promise.all([
      by.call('/v1/tokens/self'),
      by.call('/v1/tokens'),
      by.call('POST /v1/tokens', { body: { name: 'x' } }),
      by.call('POST /v1/tokens/import', { body: made }),
      by.call('POST /v1/tokens/self/rotate', { body: {} }),
      by.call(`POST /v1/tokens/${fresh.id}/revoke`, { body: {} }),
      by.call('POST /v1/tokens/revoke', { body: { filter: { owner: 'me' }, reason: 'policy' } }),
      by.call('POST /mcp', { body: { jsonrpc: '2.0', id: 1, method: 'tools/list' } }),
      by.call('POST /oauth2/introspect', {
        raw: `token=${fresh.secret}`,
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
      }),
      w.bearer(child.secret).call('/v1/tokens/self'),
      w.bearer(ofProject.secret).call('/v1/tokens/self'),
    ]);
    expect(refused.map(({ status }) => status)).toEqual(refused.map(() => 401));
    const changed = await Promise.all([
      admin.call(`POST /v1/tokens/${old.id}/rotate`, { body: { overlapSeconds: 60 } }),
      admin.call(`POST /v1/tokens/${ofProject.id}/rotate`, { body: {} }),
      admin.call(`PATCH /v1/tokens/${disabled.id}`, { body: { disabled: false } }),
      admin.call(`PATCH /v1/tokens/${child.id}`, { body: { scopes: [] } }),
    ]);
    expect(changed.map(({ status }) => status)).toEqual([409, 409, 409, 409]);

    const introspected = await w.bearer(fresh.secret).call('POST /oauth2/introspect', {
      raw: `token=${old.secret}`,
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
    });
    expect(introspected.body).toEqual({ active: false });
    const address = w.service.rpcAddress;
    const rpc = tokensCaller({ address, authorization: bearer(fresh.secret), timeoutMs: 5_000 });
    closing.push(() => rpc.close());
    const request = { token: old.secret, scopes: [], project: '', ip: '', route: '', userAgent: '' };
    expect(await rpc.verify(request)).toMatchObject({ allowed: false, denial: 'revoked' });
    expect((await rpc.verifyBatch({ requests: [request] })).responses).toMatchObject([{ denial: 'revoked' }]);
    for (const { secret } of [old, child, disabled, ofProject])
      expect((await rpc.lookup({ hash: hashSecret(secret) })).token?.denial).toBe('revoked');
    const theirs = tokensCaller({ address, authorization: bearer(old.secret), timeoutMs: 5_000 });
    closing.push(() => theirs.close());
    await expect(theirs.lookup({ hash: hashSecret(fresh.secret) })).rejects.toThrow(/not accepted/);
    await expect(
      theirs.renew({ verifierId: '', name: 'x', cursor: null, claim: newClaim(), version: '', nonce: '' } as never),
    ).rejects.toThrow(/not accepted/);
    expect(await isAccepted(fresh.secret)).toBe(true);
  });

  test('after everything is revoked, each token shows by whom and why, before its row is marked and after', async () => {
    const [old, before] = [await issue(admin), await issue(admin)];
    await admin.call(`POST /v1/tokens/${before.id}/revoke`, { body: { reason: 'superseded' } });
    await unresponsive(1_500);
    const first = await revokeAll({ prefer: 'wait=0' });
    expect(first).toMatchObject({
      status: 202,
      body: { effective: false, receipt: null, pending: [{ name: 'unresponsive' }] },
    });
    const read = async ({ id }: IssuedToken) => (await admin.call<Token>(`/v1/tokens/${id}`)).body;
    const unmarkedToken = await read(old);
    expect(unmarkedToken).toMatchObject({
      status: 'revoked',
      revocationReason: 'policy',
      revokedBy: { type: 'user', id: admin.user!.id, name: 'Administrator' },
    });
    expect(await read(before)).toMatchObject({ revocationReason: 'superseded' });
    const again = await revokeAll();
    expect(again.body).toMatchObject({
      effective: true,
      receipt: { verifiers: [{ name: 'unresponsive', by: 'lease' }] },
    });
    await waitFor(allMarked, { timeoutMs: 110_000 });
    const marked = await read(old);
    expect(marked).toEqual({ ...unmarkedToken, receipt: marked.receipt });
    expect(marked.receipt).toMatchObject({ verifiers: [{ name: 'unresponsive', by: 'lease' }] });
    expect(await read(before)).toMatchObject({ revocationReason: 'superseded' });
    const listed = await admin.call<{ items: Token[] }>('/v1/tokens', { query: { status: 'active' } });
    expect(listed.body.items).toEqual([]);
  }, 120_000);

  test('after everything is revoked, verifiers that called with a token have no lease', async () => {
    const { id } = await issue(admin, { scopes: ['tokens:verify'] });
    await w.database.query(
      `INSERT INTO leases (verifier_id, name, caller, caller_token, caller_lineage, caller_owner, renewal, lease_ms, renewed_at)
       VALUES (gen_random_uuid(), 'theirs', 'token:' || $1, $1::uuid, ARRAY[$1::uuid], $2, pg_current_xact_id(), 60000, now()),
         (gen_random_uuid(), 'ours', 'first-party', NULL, '{}', NULL, pg_current_xact_id(), 60000, now())`,
      [id, admin.user!.id],
    );
    await revokeAll({ prefer: 'wait=0' });
    expect(await w.database.query('SELECT name FROM leases WHERE ended_at IS NOT NULL')).toEqual([{ name: 'theirs' }]);
  });

  test('the audit log records who revoked everything and why, in one event', async () => {
    await issue(admin);
    const all = () =>
      w.database.query(`SELECT details FROM audit_events WHERE action = 'tokens.revoked_all' ORDER BY at, id`);
    const before = (await all()).length;
    await admin.call('POST /v1/tokens/revoke-all', { body: { ...BODY, comment: 'a backup was stolen' } });
    expect((await all()).slice(before)).toEqual([{ details: { reason: 'policy', comment: 'a backup was stolen' } }]);
    const { body } = await admin.call<{ items: object[] }>('/v1/audit', { query: { action: 'tokens.revoked_all' } });
    expect(body.items[0]).toMatchObject({ actor: { type: 'user', id: admin.user!.id }, tokenId: null });
  });
});

describe('tokens issued while everything is revoked', () => {
  test('a token that an old token issued, or that replaces one, while everything is revoked is never accepted', async () => {
    const another = await w.another();
    const rounds = 25;
    const count = { made: 0, refused: 0 };
    for (let round = 0; round < rounds; round++) {
      const scopes = ['tokens:read', 'tokens:write'];
      const [creator, ...rest] = await Promise.all(Array.from({ length: 4 }, () => issue(admin, { scopes })));
      const service = round % 2 ? another : w.service;
      const by = w.bearer(creator!.secret, service);
      const session = w.as({ cookie: admin.cookie! }, service);
      const imported = mint('pat');
      const body = { tokens: [{ sha256: hash('sha256', imported, 'hex'), start: startOf(imported), name: 'x' }] };
      const making = [
        ...Array.from({ length: 3 }, () => by.call<IssuedToken>('POST /v1/tokens', { body: { name: 'made' } })),
        by.call<IssuedToken>('POST /v1/tokens/self/rotate', { body: { overlapSeconds: 60 } }),
        by.call<IssuedToken>(`POST /v1/tokens/${rest[0]!.id}/rotate`, { body: { overlapSeconds: 60 } }),
        session.call<IssuedToken>(`POST /v1/tokens/${rest[1]!.id}/rotate`, { body: { overlapSeconds: 60 } }),
        session.call<IssuedToken>(`POST /v1/tokens/${rest[2]!.id}/rotate`, { body: { overlapSeconds: 0 } }),
      ];
      const importing = by.call('POST /v1/tokens/import', { body });
      const ending = effective();
      const responses = await Promise.all(making);
      const wasImported = (await importing).status === 201;
      await ending;
      const secrets = [
        ...responses.flatMap((response) => (response.status === 201 ? [response.body.secret] : [])),
        ...(wasImported ? [imported] : []),
      ];
      count.made += secrets.length;
      count.refused += making.length + 1 - secrets.length;
      for (const secret of secrets) expect(await isAccepted(secret)).toBe(false);
      expect(await isAccepted((await issue(admin)).secret)).toBe(true);
    }
    // Both outcomes occurred, or there was no race.
    expect(count.made).toBeGreaterThan(0);
    expect(count.refused).toBeGreaterThan(0);
  }, 180_000);

  test('a token is never accepted when everything is revoked between the check of its creator and its insert', async () => {
    const creator = await issue(admin, { scopes: ['tokens:write'] });
    // Issuing claims its key after it has checked its creator and before it inserts: there it is delayed.
    await changeSchema(
      w.database,
      `CREATE FUNCTION wait_a_moment() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN PERFORM pg_sleep(1.5); RETURN NEW; END $$;
      CREATE TRIGGER wait_a_moment BEFORE INSERT ON idempotency_keys FOR EACH ROW EXECUTE FUNCTION wait_a_moment()`,
    );
    const headers = { 'idempotency-key': 'delayed' };
    const making = w.bearer(creator.secret).call<IssuedToken>('POST /v1/tokens', { body: { name: 'made' }, headers });
    await waitFor(async () => {
      const [row] = await w.database.query(
        `SELECT count(*)::int AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'`,
      );
      return row!['n'] > 0;
    });
    await effective();
    const made = await making;
    await w.database.query('DROP TRIGGER wait_a_moment ON idempotency_keys; DROP FUNCTION wait_a_moment()');
    expect(made.status).toBe(201);
    expect(await isAccepted(made.body.secret)).toBe(false);
    // It was inserted last, and is marked too: marking has waited for it.
    await waitFor(allMarked, { timeoutMs: 110_000 });
    expect((await admin.call<Token>(`/v1/tokens/${made.body.id}`)).body.revokedAt).not.toBeNull();
  });

  test('two concurrent revocations of everything are both effective', async () => {
    const { secret } = await issue(admin);
    const [row] = await w.database.query('SELECT current FROM token_generation');
    const both = await Promise.all([effective(), effective()]);
    expect(both.map((one) => one.effective)).toEqual([true, true]);
    expect(await isAccepted(secret)).toBe(false);
    expect(await w.database.query('SELECT current FROM token_generation')).toEqual([{ current: row!['current'] + 2 }]);
  });
});

describe('marking rows', () => {
  const many = (count: number) =>
    w.database.query(
      `INSERT INTO tokens (id, hash, kind, name, start, owner_user_id, created_by_type, created_by_id, scopes, created_at, generation)
       SELECT gen_random_uuid(), sha256((random()::text || n)::bytea), 'pat', 'one of many', 'lk_pat_', $1::uuid, 'user', $1::uuid, '{}',
         now(), (SELECT current FROM token_generation) FROM generate_series(1, $2::int) n`,
      [admin.user!.id, count],
    );

  test('marking rows continues on other replicas when one is stopped, and skips tokens issued since', async () => {
    const stopped = await w.another();
    await many(2_500);
    const response = await revokeAll({}, w.as({ cookie: admin.cookie! }, stopped));
    expect(response.body.effective).toBe(true);
    await stopped.stop();
    const { secret, id } = await issue(admin);
    await waitFor(allMarked, { timeoutMs: 110_000 });
    expect(await isAccepted(secret)).toBe(true);
    expect(await w.database.query('SELECT revoked_at FROM tokens WHERE id = $1', [id])).toEqual([{ revoked_at: null }]);
    await waitFor(async () => {
      const left = await w.database.query('SELECT 1 FROM revocations_of_all WHERE marked_at IS NULL');
      return left.length === 0;
    });
  }, 120_000);
});

describe('revoking everything', () => {
  test.each([
    ['no confirmation', { reason: 'policy' }, 'confirm'],
    ['another confirmation', { reason: 'policy', confirm: 'yes' }, 'confirm'],
    ['no reason', { confirm: 'revoke everything' }, 'reason'],
    ['an unknown field', { ...BODY, dryRun: true }, 'dryRun'],
  ])(
    'revoking everything with %s is rejected by the name of the field, and changes nothing',
    async (_, body, field) => {
      const { secret } = await issue(admin);
      const response = await admin.call<{ errors: { field: string }[] }>('POST /v1/tokens/revoke-all', { body });
      expect(response.status).toBe(400);
      expect(response.body.errors.map((error) => error.field)).toContain(field);
      expect(await isAccepted(secret)).toBe(true);
    },
  );

  test('revoking everything is rejected for any token, a member, and an administrator whose sign-in is ten minutes old', async () => {
    const { secret } = await issue(admin, { scopes: ['tokens:write', 'users:write', 'system:write'] });
    const member = await w.member();
    const stale = await w.member('Administrator', 'admin');
    await w.database.query(`UPDATE sessions SET created_at = created_at - interval '10 minutes' WHERE user_id = $1`, [
      stale.user.id,
    ]);
    const responses = [];
    for (const by of [w.as(), w.bearer(secret), member, stale]) responses.push(await revokeAll({}, by));
    expect(responses.map(({ status, body }) => [status, (body as unknown as { code: string }).code])).toEqual([
      [401, 'unauthenticated'],
      [403, 'forbidden'],
      [403, 'forbidden'],
      [403, 'reauthentication_required'],
    ]);
    expect(await isAccepted(secret)).toBe(true);
    const again = await w.signIn(stale.user.email, 'correct horse battery staple');
    expect((await revokeAll({}, again)).body.effective).toBe(true);
    expect(await isAccepted(secret)).toBe(false);
  });
});
