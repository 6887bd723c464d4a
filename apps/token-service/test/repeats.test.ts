import type { RevokedToken } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { mint } from '@latchkey/token-format';
import { gatewayOf } from './gateway.js';
import { issue, type Person, type World, world } from './harness.js';

let w: World;
let admin: Person;
beforeAll(async () => {
  // Far longer than any test here: nothing is confirmed by the end of a lease.
  w = await world({ env: { LEASE_MS: '20000' } });
  admin = await w.signIn();
});
afterEach(() => w.database.query('DELETE FROM leases'));
afterAll(() => w.close());

const WRITER = { scopes: ['tokens:read', 'tokens:write', 'demo:read'] };
const OPERATOR = { scopes: ['tokens:read', 'tokens:write', 'tokens:verify'] };
const introspector = async () => w.bearer((await issue(admin, OPERATOR)).secret);
const oauthRevoke = (by: Person, token: string) =>
  by.call('POST /oauth2/revoke', {
    raw: new URLSearchParams({ token }).toString(),
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
  });

/** As a token-service leaves it that revokes a token step by step, and is killed between its first commit and publishing. */
async function revokedUnheard(id: string): Promise<void> {
  const invalidation = newId();
  await w.database.query(
    `WITH said AS (
       INSERT INTO invalidations (id, kind, subject, cut, created_at) VALUES ($2, 'token', $1::text, true, now()))
     UPDATE tokens SET revoked_at = now(), revoked_by_type = 'system', revocation_reason = 'exposed', invalidation_id = $2
     WHERE id = $1::uuid`,
    [id, invalidation],
  );
}

describe('a token that was revoked, and of whose end no verifier has heard', () => {
  test.each([
    [
      'revoking it again',
      async (id: string) => (await admin.call(`POST /v1/tokens/${id}/revoke`, { body: {} })).status,
    ],
    [
      'revoking it by RFC 7009',
      async (_: string, secret: string) => (await oauthRevoke(await introspector(), secret)).status,
    ],
  ])('is refused everywhere once %s has answered, though only what it made was left to end', async (_, again) => {
    const gateway = await gatewayOf(w, w.service);
    const token = await issue(admin, WRITER);
    const child = await issue(w.bearer(token.secret), WRITER);
    const accepts = async ({ secret }: { secret: string }) =>
      (await gateway.verifier.verify(secret, { scopes: [] })).allowed;
    expect([await accepts(token), await accepts(child)]).toEqual([true, true]);
    gateway.isCutOff = true;
    await revokedUnheard(token.id);
    expect(await accepts(token)).toBe(true);
    expect(await again(token.id, token.secret)).toBe(200);
    expect([await accepts(token), await accepts(child)]).toEqual([false, false]);
    await gateway.close();
  });

  test('gets the receipt of the repeat, and what is counted as ended is what it had made', async () => {
    const token = await issue(admin, WRITER);
    await issue(w.bearer(token.secret), WRITER);
    await revokedUnheard(token.id);
    const answer = await admin.call<RevokedToken>(`POST /v1/tokens/${token.id}/revoke`, { body: {} });
    expect(answer.body).toMatchObject({
      effective: true,
      ended: { tokens: 1, descendants: 1 },
      token: { id: token.id, receipt: { id: answer.body.receipt!.id } },
    });
  });
});

describe('while verifiers may remember what another history of the database told them', () => {
  const nobodys = () =>
    w.database.query(
      `INSERT INTO leases (verifier_id, name, caller, renewal, lease_ms, renewed_at)
       VALUES (gen_random_uuid(), 'whoever was there before', 'nobody', pg_current_xact_id(), 60000, now())`,
    );
  const NOW = { prefer: 'wait=0' };

  test('no repeat that finds nothing left to end is called effective', async () => {
    const person = await w.member();
    const token = await issue(person);
    const ofAll = () =>
      admin.call<RevokedToken>(`POST /v1/users/${person.user.id}/revoke-tokens`, { body: {}, headers: NOW });
    const byFilter = () =>
      person.call<RevokedToken>('POST /v1/tokens/revoke', {
        body: { filter: { owner: 'me' }, reason: 'policy' },
        headers: NOW,
      });
    await person.call(`POST /v1/tokens/${token.id}/revoke`, { body: {} });
    for (const repeat of [ofAll, byFilter]) expect((await repeat()).body).toMatchObject({ effective: true });
    await nobodys();
    for (const repeat of [ofAll, byFilter])
      expect(await repeat()).toMatchObject({
        status: 202,
        body: { effective: false, pending: [{ name: 'whoever was there before' }] },
      });
  });

  test('RFC 7009 does not call a token revoked that is unknown here', async () => {
    const by = await introspector();
    expect((await oauthRevoke(by, mint('pat'))).status).toBe(200);
    await nobodys();
    const answering = oauthRevoke(by, mint('pat'));
    const first = await Promise.race([answering, new Promise((resolve) => setTimeout(() => resolve('waits'), 500))]);
    expect(first).toBe('waits');
    await w.database.query(`DELETE FROM leases WHERE caller = 'nobody'`);
    expect((await answering).status).toBe(200);
  });
});
