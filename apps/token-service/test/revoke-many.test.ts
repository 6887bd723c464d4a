import { setTimeout } from 'node:timers/promises';
import type { IssuedToken, RevocationPreview, RevokedMany } from '@latchkey/contracts';
import { firstParty, maintenanceCaller } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { Client } from 'pg';
import { type ApiResponse, issue, JOBS_RPC_SECRET, type Person, project, type World, world } from './harness.js';

type Member = Awaited<ReturnType<World['member']>>;
let w: World;
let admin: Person;
beforeAll(async () => {
  w = await world();
  admin = await w.signIn();
});
afterAll(() => w.close());
afterEach(() => w.database.query('DELETE FROM leases'));

const WRITER = { scopes: ['tokens:read', 'tokens:write', 'demo:read'] };
type Body = { filter: Record<string, unknown>; reason?: string; [field: string]: unknown };
const send = (by: Person, body: Body, headers: Record<string, string> = {}): Promise<ApiResponse<RevokedMany>> =>
  by.call<RevokedMany>('POST /v1/tokens/revoke', { body: { reason: 'policy', ...body }, headers });
const preview = (by: Person, filter: Record<string, unknown>, more: object = {}) =>
  by.call<RevocationPreview>('POST /v1/tokens/revoke', {
    body: { filter, reason: 'policy', dryRun: true, ...more },
  });
/** Repeats the request until it is effective: how long that takes is not checked here. */
async function done(by: Person, body: Body): Promise<RevokedMany> {
  for (;;) {
    const response = await send(by, body);
    if (response.status === 200) return response.body;
    // 503: the outcome is unknown, and a repeat is harmless.
    if (response.status !== 202 && response.status !== 503) throw new Error(`the revocation failed: ${response.text}`);
  }
}
const isAccepted = async ({ secret }: IssuedToken) => (await w.bearer(secret).call('/v1/tokens/self')).status === 200;
const accepted = async (tokens: Record<string, IssuedToken>) => {
  const each = Object.entries(tokens).map(async ([name, token]) => ((await isAccepted(token)) ? [name] : []));
  return (await Promise.all(each)).flat();
};
const unresponsive = (leaseMs = 400) =>
  w.database.query(
    `INSERT INTO leases (verifier_id, name, caller, renewal, lease_ms, renewed_at)
     VALUES (gen_random_uuid(), 'unresponsive', 'test', pg_current_xact_id(), $1, now())`,
    [leaseMs],
  );
/** Rows as issuing writes them, a few at a time: a long transaction delays cursors of every suite on the server. */
async function many(owner: Member, count: number, start = 'lk_pat_'): Promise<void> {
  for (let from = 1; from <= count; from += 500)
    await w.database.query(
      `INSERT INTO tokens (id, hash, kind, name, start, owner_user_id, created_by_type, created_by_id, scopes, created_at)
       SELECT gen_random_uuid(), sha256(($1::text || $4 || n)::bytea), 'pat', 'one of many ' || n, $4, $1::uuid, 'user', $1::uuid, '{}', now()
       FROM generate_series($2::int, $3::int) n`,
      [owner.user.id, from, Math.min(count, from + 499), start],
    );
}
const unrevoked = async (owner: Member): Promise<number> => {
  const sql = 'SELECT count(*)::int AS n FROM tokens WHERE owner_id = $1 AND revoked_at IS NULL';
  return (await w.database.query(sql, [owner.user.id]))[0]!['n'];
};
const revokedEvents = (ids: readonly string[]) =>
  w.database.query<{ token_id: string; details: Record<string, unknown> }>(
    `SELECT token_id, details FROM audit_events WHERE action = 'token.revoked' AND token_id = ANY ($1) ORDER BY at, id`,
    [ids],
  );

describe('tokens matched by a filter', () => {
  test('revoking by filter revokes the tokens and their descendants before it returns, but not what else they were shown', async () => {
    const person = await w.member();
    const parent = await issue(person, WRITER);
    const child = await issue(w.bearer(parent.secret), WRITER);
    const sibling = await issue(await w.member(), WRITER);
    const rotated = await person.call<IssuedToken>(`POST /v1/tokens/${parent.id}/rotate`, {
      body: { overlapSeconds: 600 },
    });
    const response = await done(person, {
      filter: { owner: 'me', createdBefore: child.createdAt },
      comment: 'spring',
    });
    expect(response).toMatchObject({ matched: 1, effective: true, pending: [] });
    expect(response.ended).toEqual({ tokens: 2, successors: 0, descendants: 1, shown: 0 });
    expect(await accepted({ parent, child, sibling, successor: rotated.body })).toEqual(['sibling', 'successor']);
    const details = { reason: 'policy', comment: 'spring', batch: response.batch };
    const events = await revokedEvents([parent.id, child.id]);
    expect(events.map((event) => [event.token_id, event.details])).toEqual([
      [parent.id, details],
      [child.id, { ...details, as: 'descendant', derivedFrom: parent.id }],
    ]);
    const { body } = await person.call(`/v1/tokens/${parent.id}`);
    expect(body).toMatchObject({ status: 'revoked', revocationReason: 'policy', revokedBy: { id: person.user.id } });
    expect(body['receipt']).toMatchObject({ verifiers: [] });
  });

  test('revoking by filter as exposed revokes all that the tokens were shown, those revoked before included', async () => {
    const person = await w.member();
    const [old, leaked] = [await issue(person, WRITER), await issue(person, WRITER)];
    const victim = await issue(person, { ...WRITER, name: 'victim' });
    const other = await issue(person, WRITER);
    const rotate = async (by: IssuedToken, token: IssuedToken) =>
      (
        await w
          .bearer(by.secret)
          .call<IssuedToken>(`POST /v1/tokens/${token.id}/rotate`, { body: { overlapSeconds: 600 } })
      ).body;
    const stolen = { byOld: await rotate(old, victim), byLeaked: await rotate(leaked, other) };
    await person.call(`DELETE /v1/tokens/${old.id}`);
    const filter = { owner: 'me', createdBefore: victim.createdAt };
    const response = await done(person, { filter, reason: 'exposed' });
    expect(response).toMatchObject({ matched: 1, effective: true, ended: { tokens: 3, shown: 2 } });
    expect(await accepted({ leaked, ...stolen, victim, other })).toEqual(['victim', 'other']);
  });

  test('after a revocation by filter, exposing one of the tokens still revokes what it was shown', async () => {
    const person = await w.member();
    const leaked = await issue(person, WRITER);
    const other = await issue(person, WRITER);
    const stolen = await w
      .bearer(leaked.secret)
      .call<IssuedToken>(`POST /v1/tokens/${other.id}/rotate`, { body: { overlapSeconds: 600 } });
    await done(person, { filter: { owner: 'me', createdBefore: other.createdAt } });
    expect(await isAccepted(stolen.body)).toBe(true);
    const exposed = await person.call(`POST /v1/tokens/${leaked.id}/revoke`, { body: { reason: 'exposed' } });
    expect(exposed.body).toMatchObject({ effective: true, ended: { shown: 1 } });
    expect(await isAccepted(stolen.body)).toBe(false);
  });

  test('a filter matches the tokens that the caller may change one by one, and no others', async () => {
    const [owner, editor, viewer, outsider] = await Promise.all([w.member(), w.member(), w.member(), w.member()]);
    const at = await project(owner);
    const elsewhere = await project(outsider);
    for (const [person, role] of [
      [editor, 'editor'],
      [viewer, 'viewer'],
    ] as const)
      await owner.call(`PUT /v1/projects/${at}/members/${person.user.id}`, { body: { role } });
    const prj = (projectId: string) => ({ kind: 'prj', projectId, scopes: ['tokens:read', 'tokens:write'] });
    const tokens = [
      ...(await Promise.all([owner, editor, viewer, outsider].map((person) => issue(person, WRITER)))),
      await issue(owner, prj(at)),
      await issue(outsider, prj(elsewhere)),
      await issue(admin, { scopes: ['tokens:read', 'tokens:write'] }),
      await issue(editor, { scopes: [] }),
    ];
    const callers = [admin, owner, editor, viewer, outsider, ...tokens.map(({ secret }) => w.bearer(secret))];
    for (const by of callers) {
      const changed = await Promise.all(
        tokens.map(async ({ id }) => {
          const { status } = await by.call(`PATCH /v1/tokens/${id}`, { body: { description: 'seen' } });
          return status === 200 ? [id] : [];
        }),
      );
      const found = await preview(by, { prefix: 'lk_' });
      const known = new Set(tokens.map(({ id }) => id));
      const named = (found.body.tokens ?? []).map(({ id }) => id).filter((id) => known.has(id));
      expect(named.sort()).toEqual(changed.flat().sort());
    }
    // An empty set would look like success: where the caller may revoke nothing, the request is rejected whatever exists.
    for (const [by, filter] of [
      [viewer, { projectId: at }],
      [outsider, { projectId: at }],
      [outsider, { projectId: '01890000-0000-7000-8000-000000000000' }],
      [editor, { owner: owner.user.id }],
    ] as const)
      expect([(await preview(by, filter)).status, (await send(by, { filter })).status]).toEqual([403, 403]);
  });

  test('matches are counted for callers who may revoke them, and shown to those who may read them too', async () => {
    const person = await w.member();
    const writer = await issue(person, { scopes: ['tokens:write'] });
    const { status, body } = await preview(w.bearer(writer.secret), { owner: 'me' });
    expect([status, body]).toEqual([200, { matched: 1, tokens: [] }]);
    expect((await preview(person, { owner: 'me' })).body.tokens).toHaveLength(1);
  });

  test.each([
    ['owner and status', { status: 'expired' }, ['expired']],
    ['owner and time', { createdBefore: new Date(Date.now() - 3_600_000).toISOString() }, ['old']],
    ['owner and prefix, in which no character is a wildcard', { prefix: 'lk_pat_q_' }, []],
    ['owner and prefix', { prefix: 'lk_pat_qrst' }, ['prefixed']],
    ['owner alone', {}, ['disabled', 'expired', 'old', 'prefixed']],
  ])('a filter matches by %s', async (_, filter, expected) => {
    const person = await w.member();
    const made: Record<string, string> = {};
    for (const name of ['old', 'expired', 'prefixed', 'disabled', 'revoked'])
      made[name] = (await issue(person, { name })).id;
    await person.call(`PATCH /v1/tokens/${made['disabled']}`, { body: { disabled: true } });
    await person.call(`DELETE /v1/tokens/${made['revoked']}`);
    const set = (name: string, sets: string) =>
      w.database.query(`UPDATE tokens SET ${sets} WHERE id = $1`, [made[name]]);
    await set('old', `created_at = now() - interval '1 day'`);
    await set('expired', `expires_at = now() - interval '1 s'`);
    await set('prefixed', `start = 'lk_pat_qrst'`);
    const found = await preview(person, { owner: 'me', ...filter });
    expect(found.body.tokens.map(({ name }) => name).sort()).toEqual(expected);
    expect(found.body.matched).toBe(expected.length);
    const response = await done(person, { filter: { owner: 'me', ...filter } });
    expect(response).toMatchObject({ matched: expected.length, ended: { tokens: expected.length } });
  });
});

describe('a preview', () => {
  test('a preview of a revocation by filter changes nothing, and reports no revocation', async () => {
    const person = await w.member();
    await many(person, 120);
    const token = await issue(person);
    const counts = async () =>
      (
        await w.database.query(
          'SELECT (SELECT count(*) FROM audit_events) AS events, (SELECT count(*) FROM exposures) AS exposures, (SELECT count(*) FROM invalidations) AS invalidations',
        )
      )[0];
    const before = await counts();
    const { status, body } = await preview(person, { owner: 'me' }, { reason: 'exposed' });
    expect([status, body.matched, body.tokens.length, body.tokens[0]!.id]).toEqual([200, 121, 100, token.id]);
    expect(body).not.toHaveProperty('effective');
    expect(await counts()).toEqual(before);
    expect(await isAccepted(token)).toBe(true);
  });

  test('a revocation by filter with `expect` revokes nothing when another number of tokens matches', async () => {
    const person = await w.member();
    const tokens = [await issue(person), await issue(person)];
    const tooFew = await send(person, { filter: { owner: 'me' }, expect: 1 });
    expect(tooFew).toMatchObject({ status: 409, body: { code: 'conflict' } });
    expect((tooFew.body as unknown as { detail: string }).detail).toMatch(/\b2 tokens match, and expect names 1\b/);
    expect(await unrevoked(person)).toBe(2);
    expect(await done(person, { filter: { owner: 'me' }, expect: 2 })).toMatchObject({ matched: 2 });
    expect(await accepted(Object.fromEntries(tokens.map((token) => [token.id, token])))).toEqual([]);
  });
});

describe('an invalid revocation by filter', () => {
  const secret = `lk_pat_${'a'.repeat(36)}`;
  test.each([
    ['an empty filter', { filter: {}, reason: 'policy' }, 'filter'],
    ['no filter', { reason: 'policy' }, 'filter'],
    ['no reason', { filter: { owner: 'me' } }, 'reason'],
    ['an unknown member', { filter: { owner: 'me', name: 'x' }, reason: 'policy' }, 'filter.name'],
    ['an unknown field', { filter: { owner: 'me' }, reason: 'policy', force: true }, 'force'],
    ['a prefix that is a secret', { filter: { prefix: secret }, reason: 'policy' }, 'filter.prefix'],
    [
      'a prefix longer than is stored of any secret',
      { filter: { prefix: 'lk_pat_abcde' }, reason: 'policy' },
      'filter.prefix',
    ],
    ['a prefix with a wildcard', { filter: { prefix: 'lk%' }, reason: 'policy' }, 'filter.prefix'],
    ['an invalid time', { filter: { createdBefore: 'yesterday' }, reason: 'policy' }, 'filter.createdBefore'],
  ])('a revocation by filter with %s is rejected by the name of the field', async (_, body, field) => {
    const response = await admin.call<{ errors: { field: string }[] }>('POST /v1/tokens/revoke', { body });
    expect(response.status).toBe(400);
    expect(response.body.errors.map((error) => error.field)).toContain(field);
    expect(response.text).not.toContain(secret);
  });

  test('a filter that matches more than can be revoked at once is rejected with what to do, and changes nothing', async () => {
    const person = await w.member();
    for (const [n, count] of [10_000, 10_000, 1].entries()) await many(person, count, `lk_pat_${n}`);
    for (const response of [
      await preview(person, { owner: 'me' }),
      await send(person, { filter: { owner: 'me' } }),
    ] as ApiResponse<unknown>[]) {
      expect(response).toMatchObject({ status: 422, body: { code: 'too_many_matches' } });
      expect(response.text).toContain('Narrow the filter');
    }
    expect(await unrevoked(person)).toBe(20_001);
  }, 120_000);
});

describe('an accepted revocation by filter', () => {
  test('a revocation by filter is finished by the same process after its connection was cut during a step', async () => {
    const person = await w.member();
    await many(person, 1_200);
    // The step that reaches this row waits.
    const holder = new Client(w.database.url);
    await holder.connect();
    await holder.query(
      `BEGIN; SELECT FROM tokens WHERE owner_id = '${person.user.id}' ORDER BY id DESC LIMIT 1 FOR NO KEY UPDATE`,
    );
    const response = await send(person, { filter: { owner: 'me' } }, { prefer: 'wait=0' });
    expect(response).toMatchObject({ status: 202, body: { effective: false, matched: 1_200 } });
    const cut = () =>
      w.database.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
         AND application_name = 'latchkey-token-service' AND wait_event_type = 'Lock'`,
      );
    await waitFor(async () => (await cut()).length > 0);
    await holder.end();
    expect(await unrevoked(person)).toBeGreaterThan(0);
    await waitFor(async () => (await unrevoked(person)) === 0, { timeoutMs: 60_000 });
  }, 120_000);

  test('a revocation by filter is finished by other replicas when one stops during it', async () => {
    const person = await w.member();
    await many(person, 8_200);
    const stopped = await w.another();
    const response = await send(
      w.as({ cookie: person.cookie! }, stopped),
      { filter: { owner: 'me' } },
      { prefer: 'wait=0' },
    );
    expect(response).toMatchObject({ status: 202, body: { effective: false, matched: 8_200 } });
    await stopped.stop();
    expect(await unrevoked(person)).toBeGreaterThan(0);
    const replica = maintenanceCaller({
      address: w.service.rpcAddress,
      authorization: firstParty(JOBS_RPC_SECRET),
      timeoutMs: 10_000,
    });
    // As jobs does, which calls again and again; a revocation counts as abandoned after a time.
    const carriedOn = async () => {
      await w.database.query(`UPDATE exposures SET touched_at = now() - interval '1 hour' WHERE confirmed_at IS NULL`);
      await replica.continueExposures({ limit: 10 });
      return (await unrevoked(person)) === 0;
    };
    await waitFor(carriedOn, { timeoutMs: 90_000 });
    const [left] = await w.database.query(
      `SELECT count(*)::int AS n, count(DISTINCT details->>'batch')::int AS batches FROM audit_events
       WHERE action = 'token.revoked' AND subject_name LIKE 'one of many%' AND details->>'batch' = $1`,
      [response.body.batch],
    );
    expect(left).toEqual({ n: 8_200, batches: 1 });
    replica.close();
  }, 120_000);

  test('two concurrent revocations by filter are effective only when both sets are revoked; each token is revoked once', async () => {
    const person = await w.member();
    const tokens = await Promise.all(Array.from({ length: 40 }, () => issue(person)));
    await many(person, 1_050);
    const another = await w.another();
    const [first, second] = await Promise.all([
      done(person, { filter: { owner: 'me' } }),
      done(w.as({ cookie: person.cookie! }, another), { filter: { owner: 'me', prefix: 'lk_pat' }, reason: 'exposed' }),
    ]);
    expect([first.effective, second.effective]).toEqual([true, true]);
    expect(await accepted(Object.fromEntries(tokens.map((token) => [token.id, token])))).toEqual([]);
    expect(await unrevoked(person)).toBe(0);
    expect(first.ended.tokens + second.ended.tokens).toBeLessThanOrEqual(1_090);
    const events = await revokedEvents(tokens.map(({ id }) => id));
    expect(events).toHaveLength(40);
  });

  test('a revocation by filter is effective only once no verifier accepts any of its tokens; a repeat, which matches none, waits too', async () => {
    const person = await w.member();
    const token = await issue(person);
    await unresponsive(3_600_000);
    const filter = { owner: 'me', status: 'active' };
    const headers = { prefer: 'wait=0' };
    const pending = { status: 202, body: { effective: false, receipt: null, pending: [{ name: 'unresponsive' }] } };
    expect(await send(person, { filter }, headers)).toMatchObject(pending);
    expect(await send(person, { filter }, headers)).toMatchObject({ ...pending, body: { matched: 0 } });
    expect(await isAccepted(token)).toBe(false);
    const repeated = send(person, { filter }, { prefer: 'wait=60' });
    const isSearched = `SELECT 1 FROM exposures e JOIN exposure_members m ON m.exposure_id = e.id
      WHERE e.actor_id = $1 AND m.sought <> 'itself'`;
    await waitFor(async () => (await w.database.query(isSearched, [person.user.id])).length === 3);
    let hasReturned = false;
    void repeated.finally(() => {
      hasReturned = true;
    });
    await setTimeout(1_000);
    expect(hasReturned).toBe(false);
    await w.database.query('UPDATE leases SET lease_ms = 300');
    const { body: last } = await repeated;
    expect(last).toMatchObject({ matched: 0, effective: true, pending: [] });
    expect(last.ended.tokens).toBe(0);
  });

  test('a revocation by filter that matches nothing is effective at once', async () => {
    const person = await w.member();
    const response = await send(person, { filter: { owner: 'me' } });
    expect(response).toMatchObject({
      status: 200,
      body: { matched: 0, batch: null, effective: true, receipt: null, pending: [] },
    });
    const [left] = await w.database.query(`SELECT count(*)::int AS n FROM exposures WHERE actor_id = $1`, [
      person.user.id,
    ]);
    expect(left).toEqual({ n: 0 });
  });

  test('a revocation by filter does not affect a token issued after its set was stored', async () => {
    const person = await w.member();
    await many(person, 1_500);
    const begun = await send(person, { filter: { owner: 'me' } }, { prefer: 'wait=0' });
    const later = await issue(person);
    await waitFor(async () => (await unrevoked(person)) === 1, { timeoutMs: 60_000 });
    expect(begun.body.matched).toBe(1_500);
    expect(await isAccepted(later)).toBe(true);
  }, 120_000);

  test('one person has at most four revocations by filter in progress', async () => {
    const person = await w.member();
    await issue(person);
    const columns = '(id, actor_type, actor_id, actor_name, reason, filter, created_at, touched_at, tokens)';
    await w.database.query(
      `INSERT INTO exposures ${columns}
       SELECT gen_random_uuid(), 'user', $1, 'a person', 'policy', '{}', now(), now(), 0 FROM generate_series(1, 4)`,
      [person.user.id],
    );
    expect(await send(person, { filter: { owner: 'me' } })).toMatchObject({ status: 409 });
    await w.database.query('DELETE FROM exposures WHERE actor_id = $1', [person.user.id]);
    expect(await send(person, { filter: { owner: 'me' } })).toMatchObject({ status: 200 });
  });
});
