import { status } from '@grpc/grpc-js';
import type { SystemState } from '@latchkey/contracts';
import { firstParty, newId, tokensCaller } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import type { TokenService } from '../src/app.js';
import { GATEWAY_RPC_SECRET, issue, type Person, type World, world } from './harness.js';
import { newClaim } from './invalidation/harness.js';

let w: World;
let admin: Person;
const closing: (() => void)[] = [];
beforeAll(async () => {
  w = await world();
  admin = await w.signIn();
});
afterEach(() => {
  for (const close of closing.splice(0)) close();
});
afterAll(() => w.close());

const state = async () => (await admin.call<SystemState>('GET /v1/system')).body;

/** A verifier that only renews, of this version of Latchkey or of 0.1. */
function verifier({ version, service = w.service }: { version: '0.1' | '0.2.0'; service?: TokenService }) {
  const rpc = tokensCaller({
    address: service.rpcAddress,
    authorization: firstParty(GATEWAY_RPC_SECRET),
    timeoutMs: 5_000,
  });
  closing.push(() => rpc.close());
  const own =
    version === '0.1'
      ? { verifierId: newId(), claim: '', version: '' }
      : { verifierId: '', claim: newClaim(), version };
  const renew = () => rpc.renew({ name: 'gateway', cursor: null, ...own });
  return { renew, release: (verifierId: string) => rpc.release({ verifierId, claim: own.claim }) };
}

describe('the state of the system', () => {
  it('GET /v1/system returns versions, the invalidation log and the peppers', async () => {
    await admin.call(`POST /v1/tokens/${(await issue(admin)).id}/revoke`, { body: {} });
    const now = verifier({ version: '0.2.0' });
    const { verifierId } = await now.renew();
    const [log] = await w.database.query(
      'SELECT log, (SELECT count(*)::int FROM invalidations) AS n FROM invalidation_log',
    );
    expect(await state()).toEqual({
      versions: {
        tokenService: expect.stringMatching(/^\d+\.\d+\.\d+$/),
        database: expect.stringMatching(/^\d+\.\d+/),
        verifiers: [{ version: '0.2.0', verifiers: 1 }],
      },
      guarantee: 3,
      protocolMin: 2,
      log: { id: log!['log'], invalidations: log!['n'], oldestAt: expect.any(String) },
      ledger: { state: 'off', reason: null },
      restore: null,
      peppers: [expect.objectContaining({ configured: true, current: true, inUse: true })],
      unsettled: [],
    });
    expect(log!['n']).toBeGreaterThan(0);
    await now.release(verifierId);
  });

  it('the guarantee is that of version 0.1 while its verifiers can run that a restored database lacks', async () => {
    await w.database.query(
      `INSERT INTO leases (verifier_id, name, caller, renewal, lease_ms, renewed_at)
       VALUES ($1, 'whoever was there before the restore', 'nobody', pg_current_xact_id(), 500, now())`,
      [newId()],
    );
    expect(await state()).toMatchObject({ guarantee: 2, versions: { verifiers: [] } });
    await waitFor(async () => (await state()).guarantee === 3);
  });

  it('the guarantee is that of version 0.1 while a verifier of it has a lease', async () => {
    const [old, now] = [verifier({ version: '0.1' }), verifier({ version: '0.2.0' })];
    const [{ verifierId }, lease] = [await old.renew(), await now.renew()];
    expect(await state()).toMatchObject({
      guarantee: 2,
      versions: {
        verifiers: [
          { version: '', verifiers: 1 },
          { version: '0.2.0', verifiers: 1 },
        ],
      },
    });
    // Its release without a claim does not count: its lease has to lapse.
    await old.release(verifierId);
    expect(await state()).toMatchObject({ guarantee: 2 });
    await waitFor(async () => (await state()).guarantee === 3, { timeoutMs: 10_000 });
    await now.release(lease.verifierId);
  });

  it('GET /v1/system lists accepted revocations until they are effective', async () => {
    const silent = verifier({ version: '0.2.0' });
    const { id } = await issue(admin);
    await silent.renew();
    const revoked = await admin.call<{ effective: boolean }>(`POST /v1/tokens/${id}/revoke`, {
      body: { reason: 'exposed' },
      headers: { prefer: 'wait=0' },
    });
    expect(revoked.body.effective).toBe(false);
    expect((await state()).unsettled).toEqual([
      { kind: 'revocation', id: expect.any(String), since: expect.any(String) },
    ]);
    await waitFor(async () => (await state()).unsettled.length === 0, { timeoutMs: 10_000 });
  });
});

describe('a token-service with PROTOCOL_MIN=3', () => {
  it('with PROTOCOL_MIN=3 a verifier of version 0.1 gets no lease and the reason; others get theirs', async () => {
    const strict = await w.another({ PROTOCOL_MIN: '3' });
    await expect(verifier({ version: '0.1', service: strict }).renew()).rejects.toMatchObject({
      code: status.FAILED_PRECONDITION,
      details: expect.stringContaining('PROTOCOL_MIN=3'),
    });
    const now = verifier({ version: '0.2.0', service: strict });
    const { verifierId } = await now.renew();
    expect(await state()).toMatchObject({ guarantee: 3 });
    await now.release(verifierId);
  });
});
