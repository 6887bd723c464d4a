import { hash } from 'node:crypto';
import type { Effect, IssuedToken, Token } from '@latchkey/contracts';
import { bearer, firstParty, maintenanceCaller, tokensCaller } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { hashSecret, mint, startOf } from '@latchkey/token-format';
import type { Verifier } from '@latchkey/verifier';
import type { TokenService } from '../src/app.js';
import { gatewayOf } from './gateway.js';
import { type Answered, issue, JOBS_RPC_SECRET, type Person, project, type World, world } from './harness.js';
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
const revokeAll = (headers: Record<string, string> = {}, by: Person = admin): Promise<Answered<Effect>> =>
  by.call<Effect>('POST /v1/tokens/revoke-all', { body: BODY, headers });
async function effective(by: Person = admin): Promise<Effect> {
  const answer = await revokeAll({}, by);
  if (answer.status !== 200) throw new Error(`answered ${answer.text}`);
  return answer.body;
}
const isAccepted = async (secret: string) => (await w.bearer(secret).call('/v1/tokens/self')).status === 200;
const asleep = (leaseMs = 400) =>
  w.database.query(
    `INSERT INTO leases (verifier_id, name, caller, renewal, lease_ms, renewed_at)
     VALUES (gen_random_uuid(), 'asleep', 'test', pg_current_xact_id(), $1, now())`,
    [leaseMs],
  );
const unmarked = async (): Promise<number> =>
  (
    await w.database.query(
      'SELECT count(*)::int AS n FROM tokens WHERE revoked_at IS NULL AND generation < (SELECT current FROM token_generation)',
    )
  )[0]!['n'];

/** As jobs has somebody go on. Whatever else runs on the same server holds marking up: it waits for open transactions. */
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

describe('once it has answered that everything is revoked', () => {
  test('gateways of every replica refuse what they remembered, and its streams have ended', async () => {
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

  test('a token is let in nowhere, and nothing is made of it', async () => {
    const all = { scopes: ['tokens:read', 'tokens:write', 'tokens:verify', 'users:read'] };
    const old = await issue(admin, all);
    const child = await issue(w.bearer(old.secret), { scopes: ['tokens:read'] });
    const disabled = await issue(admin);
    await admin.call(`PATCH /v1/tokens/${disabled.id}`, { body: { disabled: true } });
    const ofProject = await issue(admin, { kind: 'prj', projectId: await project(admin), scopes: ['demo:read'] });
    // Nothing is marked before a verifier that sleeps has lapsed.
    await asleep(5_000);
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
    const asked = { token: old.secret, scopes: [], project: '', ip: '', route: '', userAgent: '' };
    expect(await rpc.verify(asked)).toMatchObject({ allowed: false, denial: 'revoked' });
    expect((await rpc.verifyBatch({ requests: [asked] })).responses).toMatchObject([{ denial: 'revoked' }]);
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

  test('each of its tokens says so, with who and why, before its row is marked and after', async () => {
    const [old, before] = [await issue(admin), await issue(admin)];
    await admin.call(`POST /v1/tokens/${before.id}/revoke`, { body: { reason: 'superseded' } });
    await asleep(1_500);
    const first = await revokeAll({ prefer: 'wait=0' });
    expect(first).toMatchObject({
      status: 202,
      body: { effective: false, receipt: null, pending: [{ name: 'asleep' }] },
    });
    const read = async ({ id }: IssuedToken) => (await admin.call<Token>(`/v1/tokens/${id}`)).body;
    const unsaid = await read(old);
    expect(unsaid).toMatchObject({
      status: 'revoked',
      revocationReason: 'policy',
      revokedBy: { type: 'user', id: admin.user!.id, name: 'Administrator' },
    });
    expect(await read(before)).toMatchObject({ revocationReason: 'superseded' });
    const again = await revokeAll();
    expect(again.body).toMatchObject({ effective: true, receipt: { verifiers: [{ name: 'asleep', by: 'lease' }] } });
    await waitFor(allMarked, { timeoutMs: 110_000 });
    const said = await read(old);
    expect(said).toEqual({ ...unsaid, receipt: said.receipt });
    expect(said.receipt).toMatchObject({ verifiers: [{ name: 'asleep', by: 'lease' }] });
    expect(await read(before)).toMatchObject({ revocationReason: 'superseded' });
    const listed = await admin.call<{ items: Token[] }>('/v1/tokens', { query: { status: 'active' } });
    expect(listed.body.items).toEqual([]);
  }, 120_000);

  test('verifiers that called with a token have no lease any more', async () => {
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

  test('the audit log tells who did it and why, in one event', async () => {
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

describe('a token that is made while everything is revoked', () => {
  test('is dead if a token made it, or in whose place it came was there before; round after round', async () => {
    const another = await w.another();
    const rounds = 25;
    const count = { made: 0, refused: 0 };
    for (let round = 0; round < rounds; round++) {
      const scopes = ['tokens:read', 'tokens:write'];
      const [maker, ...rest] = await Promise.all(Array.from({ length: 4 }, () => issue(admin, { scopes })));
      const service = round % 2 ? another : w.service;
      const by = w.bearer(maker!.secret, service);
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
      const answers = await Promise.all(making);
      const wasImported = (await importing).status === 201;
      await ending;
      const secrets = [
        ...answers.flatMap((answer) => (answer.status === 201 ? [answer.body.secret] : [])),
        ...(wasImported ? [imported] : []),
      ];
      count.made += secrets.length;
      count.refused += making.length + 1 - secrets.length;
      for (const secret of secrets) expect(await isAccepted(secret)).toBe(false);
      expect(await isAccepted((await issue(admin)).secret)).toBe(true);
    }
    // Both ways it went, or nothing has been raced.
    expect(count.made).toBeGreaterThan(0);
    expect(count.refused).toBeGreaterThan(0);
  }, 180_000);

  test('is dead as it arrives where everything is revoked between the look at its maker and its insert', async () => {
    const maker = await issue(admin, { scopes: ['tokens:write'] });
    // Issuing claims its key after it has looked at its maker and before it inserts: there it is held up.
    await w.database.query(`CREATE FUNCTION wait_a_moment() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN PERFORM pg_sleep(1.5); RETURN NEW; END $$;
      CREATE TRIGGER wait_a_moment BEFORE INSERT ON idempotency_keys FOR EACH ROW EXECUTE FUNCTION wait_a_moment()`);
    const headers = { 'idempotency-key': 'held-up' };
    const making = w.bearer(maker.secret).call<IssuedToken>('POST /v1/tokens', { body: { name: 'made' }, headers });
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
    // It arrived behind the others, and is marked like them: marking has waited for it.
    await waitFor(allMarked, { timeoutMs: 110_000 });
    expect((await admin.call<Token>(`/v1/tokens/${made.body.id}`)).body.revokedAt).not.toBeNull();
  });

  test('two who revoke everything at once are both right', async () => {
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

  test('is gone on with by others when a replica is stopped, and leaves alone what was issued since', async () => {
    const stopped = await w.another();
    await many(2_500);
    const answer = await revokeAll({}, w.as({ cookie: admin.cookie! }, stopped));
    expect(answer.body.effective).toBe(true);
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
  ])('is refused by the name of the field, and changes nothing: %s', async (_, body, field) => {
    const { secret } = await issue(admin);
    const answer = await admin.call<{ errors: { field: string }[] }>('POST /v1/tokens/revoke-all', { body });
    expect(answer.status).toBe(400);
    expect(answer.body.errors.map((error) => error.field)).toContain(field);
    expect(await isAccepted(secret)).toBe(true);
  });

  test('is refused for a token whatever it holds, a member, and an administrator whose sign-in is ten minutes old', async () => {
    const { secret } = await issue(admin, { scopes: ['tokens:write', 'users:write', 'system:write'] });
    const member = await w.member();
    const stale = await w.member('Administrator', 'admin');
    await w.database.query(`UPDATE sessions SET created_at = created_at - interval '10 minutes' WHERE user_id = $1`, [
      stale.user.id,
    ]);
    const answers = [];
    for (const by of [w.as(), w.bearer(secret), member, stale]) answers.push(await revokeAll({}, by));
    expect(answers.map(({ status, body }) => [status, (body as unknown as { code: string }).code])).toEqual([
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
