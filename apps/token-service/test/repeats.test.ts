import type { RevokedToken } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { mint } from '@latchkey/token-format';
import { gatewayOf } from './gateway.js';
import { issue, type Person, type World, world } from './harness.js';

let w: World;
let admin: Person;
beforeAll(async () => {
  // Far longer than any test here: nothing is confirmed by the expiry of a lease.
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

/** The state that a token-service leaves when it is killed between the first commit of a revocation and publishing. */
async function revokeUnpublished(id: string): Promise<void> {
  const invalidation = newId();
  await w.database.query(
    `WITH invalidation AS (
       INSERT INTO invalidations (id, kind, subject, cut, created_at) VALUES ($2, 'token', $1::text, true, now()))
     UPDATE tokens SET revoked_at = now(), revoked_by_type = 'system', revocation_reason = 'exposed', invalidation_id = $2
     WHERE id = $1::uuid`,
    [id, invalidation],
  );
}

describe('a revoked token whose invalidation no verifier has received', () => {
  test.each([
    [
      'revoking it again',
      async (id: string) => (await admin.call(`POST /v1/tokens/${id}/revoke`, { body: {} })).status,
    ],
    [
      'revoking it by RFC 7009',
      async (_: string, secret: string) => (await oauthRevoke(await introspector(), secret)).status,
    ],
  ])(
    'a revoked token unknown to verifiers is rejected everywhere once %s has returned, though only its descendants were left',
    async (_, again) => {
      const gateway = await gatewayOf(w, w.service);
      const token = await issue(admin, WRITER);
      const child = await issue(w.bearer(token.secret), WRITER);
      const accepts = async ({ secret }: { secret: string }) =>
        (await gateway.verifier.verify(secret, { scopes: [] })).allowed;
      expect([await accepts(token), await accepts(child)]).toEqual([true, true]);
      gateway.isCutOff = true;
      await revokeUnpublished(token.id);
      expect(await accepts(token)).toBe(true);
      expect(await again(token.id, token.secret)).toBe(200);
      expect([await accepts(token), await accepts(child)]).toEqual([false, false]);
      await gateway.close();
    },
  );

  test('a repeated revocation returns its own receipt, and counts the descendants that it revoked', async () => {
    const token = await issue(admin, WRITER);
    await issue(w.bearer(token.secret), WRITER);
    await revokeUnpublished(token.id);
    const response = await admin.call<RevokedToken>(`POST /v1/tokens/${token.id}/revoke`, { body: {} });
    expect(response.body).toMatchObject({
      effective: true,
      ended: { tokens: 1, descendants: 1 },
      token: { id: token.id, receipt: { id: response.body.receipt!.id } },
    });
  });
});

describe('while verifiers can have cached what they read of another history of the database', () => {
  const unownedLease = () =>
    w.database.query(
      `INSERT INTO leases (verifier_id, name, caller, renewal, lease_ms, renewed_at)
       VALUES (gen_random_uuid(), 'whoever was there before', 'nobody', pg_current_xact_id(), 60000, now())`,
    );
  const NOW = { prefer: 'wait=0' };

  test('while an unowned lease exists, a repeat that finds nothing to revoke is not effective', async () => {
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
    await unownedLease();
    for (const repeat of [ofAll, byFilter])
      expect(await repeat()).toMatchObject({
        status: 202,
        body: { effective: false, pending: [{ name: 'whoever was there before' }] },
      });
  });

  test('while an unowned lease exists, RFC 7009 does not report an unknown token as revoked', async () => {
    const by = await introspector();
    expect((await oauthRevoke(by, mint('pat'))).status).toBe(200);
    await unownedLease();
    const revoking = oauthRevoke(by, mint('pat'));
    const first = await Promise.race([revoking, new Promise((resolve) => setTimeout(() => resolve('waits'), 500))]);
    expect(first).toBe('waits');
    await w.database.query(`DELETE FROM leases WHERE caller = 'nobody'`);
    expect((await revoking).status).toBe(200);
  });
});
