import type { IssuedToken, RevokedToken } from '@latchkey/contracts';
import { firstParty, maintenanceCaller } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { type ApiResponse, issue, JOBS_RPC_SECRET, type Person, project, type World, world } from './harness.js';

let w: World;
let person: Awaited<ReturnType<World['member']>>;
beforeAll(async () => {
  w = await world();
  person = await w.member();
});
afterAll(() => w.close());

const WRITER = { scopes: ['tokens:read', 'tokens:write', 'demo:read'] };
const rotate = async (by: Person, id: string, overlapSeconds = 3_600) => {
  const response = await by.call<IssuedToken>(`POST /v1/tokens/${id}/rotate`, { body: { overlapSeconds } });
  if (response.status !== 201) throw new Error(`rotating failed: ${response.text}`);
  return response.body;
};
/** Repeats the request until it is effective: how long that takes is not checked here. */
const expose = async (id: string, by: Person = person): Promise<ApiResponse<RevokedToken>> => {
  for (;;) {
    const response = await by.call<RevokedToken>(`POST /v1/tokens/${id}/revoke`, { body: { reason: 'exposed' } });
    if (response.status !== 202) return response;
  }
};
const isAccepted = async ({ secret }: IssuedToken) => (await w.bearer(secret).call('/v1/tokens/self')).status === 200;
const accepted = async (tokens: Record<string, IssuedToken>) => {
  const each = Object.entries(tokens).map(async ([name, token]) => ((await isAccepted(token)) ? [name] : []));
  return (await Promise.all(each)).flat();
};

/** A leaked token, and what its thief does with it: every way to be shown a secret. */
async function leak() {
  const at = await project(person);
  const [leaked, sibling, ofProject] = await Promise.all([
    issue(person, WRITER),
    issue(person, WRITER),
    issue(person, { kind: 'prj', projectId: at, scopes: ['demo:read'] }),
  ]);
  const thief = w.bearer(leaked.secret);
  const successors = { sibling: await rotate(thief, sibling.id), ofProject: await rotate(thief, ofProject.id) };
  const child = await issue(thief, WRITER);
  const own = await rotate(thief, 'self');
  const further = await issue(w.bearer(successors.sibling.secret), WRITER);
  const shown = { ...successors, child, own, further };
  return { leaked, sibling, ofProject, shown };
}

describe('a token revoked as exposed', () => {
  test('revoking a token as exposed revokes all that it was shown before it returns', async () => {
    const { leaked, sibling, ofProject, shown } = await leak();
    const response = await expose(leaked.id);
    expect(response).toMatchObject({ status: 200, body: { effective: true, token: { status: 'revoked' } } });
    expect(await accepted({ leaked, ...shown })).toEqual([]);
    // Their owner always had those, and they end with their overlap.
    expect(await accepted({ sibling, ofProject })).toEqual(['sibling', 'ofProject']);
  });

  test('reporting a found token as exposed revokes all that it was shown', async () => {
    const { leaked, sibling, shown } = await leak();
    const response = await w.as().call('POST /v1/tokens/revoke-exposed', { body: { tokens: [leaked.secret] } });
    expect(response.status).toBe(202);
    expect(await isAccepted(leaked)).toBe(false);
    await waitFor(async () => (await accepted(shown)).length === 0);
    expect(await isAccepted(sibling)).toBe(true);
  });
});

/** Tokens that the leaked one was shown: rows as rotating siblings and issuing would write them. */
async function shownManyTo(leaked: IssuedToken, count: number, derived: boolean): Promise<void> {
  await w.database.query(
    `INSERT INTO tokens (id, hash, kind, name, start, owner_user_id, created_by_type, created_by_id, ancestors, scopes, created_at)
     SELECT gen_random_uuid(), sha256((t.id::text || n)::bytea), 'pat', 'shown ' || n, 'lk_pat_', t.owner_user_id, 'token', t.id,
       CASE WHEN $3 THEN ARRAY[t.id] ELSE '{}' END, '{}', now()
     FROM tokens t, generate_series(1, $2::int) n WHERE t.id = $1`,
    [leaked.id, count, derived],
  );
}
const unrevoked = async (leaked: IssuedToken): Promise<number> => {
  const sql = 'SELECT count(*)::int AS n FROM tokens WHERE created_by_id = $1 AND revoked_at IS NULL';
  return (await w.database.query(sql, [leaked.id]))[0]!['n'];
};

describe('what an exposed token was shown', () => {
  test('all that an exposed token was shown is revoked however much it is, counted by kind, and audited with the cause', async () => {
    const leaked = await issue(person, WRITER);
    const thief = w.bearer(leaked.secret);
    const sibling = await issue(person, WRITER);
    const stolen = await rotate(thief, sibling.id);
    const child = await issue(thief, WRITER);
    // The owner rotates the child: not shown to the thief, but still derived from its token.
    const rotatedChild = await rotate(person, child.id);
    const own = await rotate(thief, 'self');
    await shownManyTo(leaked, 1_100, false);
    await shownManyTo(stolen, 1_050, true);
    const { body } = await expose(leaked.id);
    expect(body.effective).toBe(true);
    expect(body.ended).toEqual({ tokens: 2_155, successors: 1, descendants: 1_052, shown: 1_101 });
    expect([await unrevoked(leaked), await unrevoked(stolen)]).toEqual([0, 0]);
    expect(await accepted({ leaked, stolen, child, rotatedChild, own })).toEqual([]);
    const why = async (id: string) =>
      (
        await w.database.query(`SELECT details FROM audit_events WHERE token_id = $1 AND action = 'token.revoked'`, [
          id,
        ])
      ).map(({ details }) => details);
    expect(await why(leaked.id)).toEqual([{ reason: 'exposed' }]);
    expect(await why(stolen.id)).toEqual([{ reason: 'exposed', as: 'shown', shownTo: leaked.id }]);
    expect(await why(rotatedChild.id)).toEqual([{ reason: 'exposed', as: 'descendant', derivedFrom: leaked.id }]);
  });

  test('revoking an exposed token leaves alone what a person has rotated', async () => {
    const leaked = await issue(person, WRITER);
    const stolen = await rotate(w.bearer(leaked.secret), (await issue(person, WRITER)).id);
    const saved = { own: await rotate(person, leaked.id), regained: await rotate(person, stolen.id) };
    const { body } = await expose(leaked.id);
    expect(body.ended).toEqual({ tokens: 2, successors: 0, descendants: 0, shown: 1 });
    expect(await accepted({ leaked, stolen, ...saved })).toEqual(['own', 'regained']);
  });

  test('what an exposed token was shown is found through tokens revoked earlier', async () => {
    const leaked = await issue(person, WRITER);
    const child = await issue(w.bearer(leaked.secret), WRITER);
    const stolen = await rotate(w.bearer(child.secret), (await issue(person, WRITER)).id);
    await person.call(`DELETE /v1/tokens/${child.id}`);
    await person.call(`DELETE /v1/tokens/${leaked.id}`);
    expect(await isAccepted(stolen)).toBe(true);
    const { body } = await expose(leaked.id);
    expect(body).toMatchObject({ effective: true, ended: { tokens: 1, shown: 1 } });
    expect(await isAccepted(stolen)).toBe(false);
  });

  test('exposing all tokens of a person revokes what each was shown, those of revoked tokens included', async () => {
    const admin = await w.signIn();
    const victim = await w.member();
    const old = await issue(victim, WRITER);
    const at = await project(victim);
    const ofProject = await issue(victim, { kind: 'prj', projectId: at, scopes: ['demo:read'] });
    const stolen = await rotate(w.bearer(old.secret), ofProject.id);
    await victim.call(`DELETE /v1/tokens/${old.id}`);
    const active = await issue(victim, WRITER);
    const response = await admin.call<RevokedToken>(`POST /v1/users/${victim.user.id}/revoke-tokens`, {
      body: { reason: 'exposed' },
    });
    expect(response).toMatchObject({ status: 200, body: { effective: true, ended: { tokens: 2, shown: 1 } } });
    expect(await accepted({ stolen, active })).toEqual([]);
  });

  test('an exposure waits for verifiers that can have any of it in memory; until then it is 202, with what is revoked so far', async () => {
    const leaked = await issue(person, WRITER);
    await shownManyTo(leaked, 3, false);
    await w.database.query(
      `INSERT INTO leases (verifier_id, name, caller, renewal, lease_ms, renewed_at) VALUES (gen_random_uuid(), 'unresponsive', 'test', pg_current_xact_id(), 2000, now())`,
    );
    const first = await person.call<RevokedToken>(`POST /v1/tokens/${leaked.id}/revoke`, {
      body: { reason: 'exposed' },
      headers: { prefer: 'wait=0' },
    });
    expect(first).toMatchObject({
      status: 202,
      body: { effective: false, receipt: null, pending: [{ name: 'unresponsive' }] },
    });
    const again = await person.call<RevokedToken>(`POST /v1/tokens/${leaked.id}/revoke`, {
      body: { reason: 'exposed' },
      headers: { prefer: 'wait=0' },
    });
    expect(again).toMatchObject({ status: 202, body: { effective: false, pending: [{ name: 'unresponsive' }] } });
    const repeated = await expose(leaked.id);
    expect(repeated).toMatchObject({
      status: 200,
      body: { effective: true, pending: [], receipt: { verifiers: [{ name: 'unresponsive', by: 'lease' }] } },
    });
    expect(repeated.body.ended).toEqual({ tokens: 4, successors: 0, descendants: 0, shown: 3 });
    const own = await w.database.query('SELECT receipt FROM tokens WHERE created_by_id = $1', [leaked.id]);
    expect(own.map(({ receipt }) => receipt?.verifiers[0].by)).toEqual(['lease', 'lease', 'lease']);
    // Finished: a third request returns what is stored.
    expect((await expose(leaked.id)).body).toMatchObject({
      effective: true,
      receipt: repeated.body.receipt,
      ended: repeated.body.ended,
    });
    await w.database.query('DELETE FROM leases');
  });

  test('an exposure is finished by other replicas when one stops during it, also by several at once', async () => {
    const leaked = await issue(person, WRITER);
    await shownManyTo(leaked, 4_000, false);
    const stopped = await w.another();
    const begun = await w.as({ cookie: person.cookie! }, stopped).call(`POST /v1/tokens/${leaked.id}/revoke`, {
      body: { reason: 'exposed' },
      headers: { prefer: 'wait=0' },
    });
    expect(begun).toMatchObject({ status: 202, body: { effective: false } });
    await stopped.stop();
    expect(await isAccepted(leaked)).toBe(false);
    expect(await unrevoked(leaked)).toBeGreaterThan(0);
    const replicas = [w.service, await w.another()].map(({ rpcAddress: address }) =>
      maintenanceCaller({ address, authorization: firstParty(JOBS_RPC_SECRET), timeoutMs: 10_000 }),
    );
    const go = () => Promise.all(replicas.map((replica) => replica.continueExposures({ limit: 10 })));
    // No replica takes over what another can still be working on.
    expect(await go()).toEqual([expect.objectContaining({ done: 0 }), expect.objectContaining({ done: 0 })]);
    await w.database.query(`UPDATE exposures SET touched_at = now() - interval '1 hour' WHERE confirmed_at IS NULL`);
    const done = await go();
    expect(done.reduce((sum, one) => sum + one.done, 0)).toBe(1);
    await waitFor(async () => (await unrevoked(leaked)) === 0, { timeoutMs: 60_000 });
    const { body } = await expose(leaked.id);
    expect(body).toMatchObject({ effective: true, ended: { tokens: 4_001, shown: 4_000 } });
    for (const replica of replicas) replica.close();
  });
});

describe('a repeated revocation', () => {
  test('a repeated revocation waits for a new invalidation when its receipt and its invalidation no longer exist', async () => {
    const { id } = await issue(person);
    const other = await issue(person);
    await person.call(`DELETE /v1/tokens/${id}`);
    await expose(other.id);
    await w.database.query('UPDATE tokens SET receipt = NULL WHERE id = ANY ($1)', [[id, other.id]]);
    await w.database.query('DELETE FROM invalidations');
    await w.database.query(
      `INSERT INTO leases (verifier_id, name, caller, renewal, lease_ms, renewed_at) VALUES (gen_random_uuid(), 'unresponsive', 'test', pg_current_xact_id(), 2000, now())`,
    );
    // On a busy machine the lease can outlast the wait of one request.
    const repeat = await waitFor(async () => {
      const { body } = await person.call<RevokedToken>(`POST /v1/tokens/${id}/revoke`);
      return body.effective ? body : null;
    });
    expect(repeat.receipt?.verifiers).toEqual([expect.objectContaining({ name: 'unresponsive', by: 'lease' })]);
    expect(await w.database.query('SELECT kind, subject, cut FROM invalidations')).toEqual([
      { kind: 'token', subject: id, cut: true },
    ]);
    await w.database.query('DELETE FROM leases');
  });

  const unresponsive = () =>
    w.database.query(
      `INSERT INTO leases (verifier_id, name, caller, renewal, lease_ms, renewed_at) VALUES (gen_random_uuid(), 'unresponsive', 'test', pg_current_xact_id(), 2000, now())`,
    );
  test.each<[string, (on: Awaited<ReturnType<World['member']>>) => Promise<[method: string, body: object]>]>([
    ['disabling a token', async (on) => [`PATCH /v1/tokens/${(await issue(on)).id}`, { disabled: true }]],
    ['disabling a person', async (on) => [`PATCH /v1/users/${on.user.id}`, { disabled: true }]],
    ["a person's role", async (on) => [`PATCH /v1/users/${on.user.id}`, { role: 'member' }]],
    [
      "revoking all of a person's tokens",
      async (on) => {
        await issue(on);
        return [`POST /v1/users/${on.user.id}/revoke-tokens`, {}];
      },
    ],
    [
      "a member's role",
      async (on) => {
        const at = await project(await w.signIn());
        return [`PUT /v1/projects/${at}/members/${on.user.id}`, { role: 'viewer' }];
      },
    ],
    ['closing a project', async () => [`DELETE /v1/projects/${await project(await w.signIn())}`, {}]],
  ])('a repeat is never effective while the first request still waits: %s', async (_, change) => {
    const admin = await w.signIn();
    const [target, body] = await change(await w.member());
    const send = target.startsWith('DELETE') ? {} : { body };
    await unresponsive();
    const headers = { prefer: 'wait=0' };
    const [first, second] = [
      await admin.call(target, { ...send, headers }),
      await admin.call(target, { ...send, headers }),
    ];
    expect([first, second].map(({ status, body }) => [status, body['effective']])).toEqual([
      [202, false],
      [202, false],
    ]);
    const last = await admin.call(target, send);
    expect(last).toMatchObject({ status: 200, body: { effective: true, receipt: { verifiers: [{ by: 'lease' }] } } });
    await w.database.query('DELETE FROM leases');
  });
});

describe('what else an exposed token has changed', () => {
  test('what else an exposed token has changed is listed as far as the caller may see it, and counted beyond that', async () => {
    const admin = await w.signIn();
    const at = await project(person);
    await person.call(`PUT /v1/projects/${at}/members/${admin.user!.id}`, { body: { role: 'owner' } });
    // An administrator's token: it changes more than the owner of the project may see.
    const scopes = ['tokens:read', 'tokens:write', 'projects:write', 'users:write', 'demo:read'];
    const leaked = await issue(admin, { kind: 'pat', scopes });
    const thief = w.bearer(leaked.secret);
    const ofProject = await issue(person, { kind: 'prj', projectId: at, scopes: ['demo:read'] });
    await thief.call(`PATCH /v1/tokens/${ofProject.id}`, { body: { name: 'renamed' } });
    const friend = await thief.call<{ id: string }>('POST /v1/users', {
      body: { email: 'friend@example.org', name: 'Friend', role: 'member' },
    });
    await thief.call(`PUT /v1/projects/${at}/members/${friend.body.id}`, { body: { role: 'owner' } });
    await rotate(thief, ofProject.id);
    const { alsoChanged } = (await expose(leaked.id, admin)).body;
    expect(alsoChanged).toMatchObject({ others: 0, audit: `/v1/audit?actor=${leaked.id}` });
    expect(alsoChanged!.items.map(({ action, by }) => [action, by.id])).toEqual(
      ['token.rotated', 'member.added', 'user.created', 'token.updated'].map((action) => [action, leaked.id]),
    );
    const narrow = w.bearer((await issue(admin, { scopes: ['tokens:write'] })).secret);
    expect((await expose(leaked.id, narrow)).body.alsoChanged).toMatchObject({ items: [], others: 4 });
  });
});

describe('a family of tokens', () => {
  const growFamily = (root: IssuedToken, count: number, ago = '0 s') =>
    w.database.query(
      `INSERT INTO tokens (id, hash, kind, name, start, owner_user_id, created_by_type, created_by_id, family_id, scopes, created_at)
       SELECT gen_random_uuid(), sha256((t.id::text || n || $3)::bytea), 'pat', 'n', 'lk_pat_', t.owner_user_id, 'token', t.id, t.id,
         '{}', now() - $3::interval
       FROM tokens t, generate_series(1, $2::int) n WHERE t.id = $1`,
      [root.id, count, ago],
    );

  test('a family of tokens gets at most 2000 secrets in an hour, whichever member issues or rotates; a person is not limited', async () => {
    const root = await issue(person, WRITER);
    const stolen = await rotate(w.bearer(root.secret), (await issue(person, WRITER)).id);
    const next = await rotate(w.bearer(stolen.secret), 'self');
    await growFamily(root, 3_000, '61 minutes');
    await growFamily(root, 1_997);
    expect((await issue(w.bearer(next.secret))).name).toBe('a token');
    const sibling = await issue(person, WRITER);
    for (const secret of [root.secret, stolen.secret, next.secret]) {
      const by = w.bearer(secret);
      const responses = [
        await by.call('POST /v1/tokens', { body: { name: 'one more' } }),
        await by.call(`POST /v1/tokens/${sibling.id}/rotate`, { body: {} }),
      ];
      for (const response of responses) {
        expect(response).toMatchObject({ status: 429, body: { code: 'rate_limited' } });
        expect(response.body['detail']).toContain('at most 2000 secrets in an hour');
        expect(Number(response.headers.get('retry-after'))).toBeGreaterThan(0);
      }
    }
    expect((await rotate(person, sibling.id)).rotatedFrom).toBe(sibling.id);
  });
});
