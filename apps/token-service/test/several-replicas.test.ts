import { waitFor } from '@latchkey/testing';
import type { TokenService } from '../src/app.js';
import { gatewayOf } from './gateway.js';
import { issue, type Person, type World, world } from './harness.js';

let w: World;
let admin: Person;
beforeAll(async () => {
  w = await world({ env: { RPC_CONNECTION_AGE_MS: '1000' } });
  admin = await w.signIn();
});
afterAll(() => w.close());

const renewed = async ({ opsUrl }: TokenService): Promise<number> => {
  const metrics = await (await fetch(`${opsUrl}/metrics`)).text();
  return Number(/^latchkey_lease_events_total\{[^}]*"renewed"[^}]*\} (\d+)/m.exec(metrics)?.[1] ?? 0);
};

test('a gateway renews its lease at all replicas in turn, and every revocation is effective, also when one of them stops', async () => {
  const other = await w.another();
  const replicas = [w.service, other];
  const rpcAddress = replicas.map((replica) => replica.rpcAddress).join(',');
  const gateway = await gatewayOf(w, { ...other, rpcAddress });
  const revokeOne = async () => {
    const { id, secret } = await issue(admin);
    expect(await gateway.verifier.verify(secret, { scopes: [] })).toMatchObject({ allowed: true });
    const { body } = await admin.call(`POST /v1/tokens/${id}/revoke`, { body: {} });
    expect(body).toMatchObject({ effective: true, receipt: { verifiers: [{ name: 'gateway' }] } });
    expect(await gateway.verifier.verify(secret, { scopes: [] })).toMatchObject({ allowed: false, reason: 'revoked' });
  };
  try {
    const before = await Promise.all(replicas.map(renewed));
    // Longer than a connection lives.
    await waitFor(
      async () => {
        await revokeOne();
        return (await Promise.all(replicas.map(renewed))).every((count, i) => count >= before[i]! + 2);
      },
      { timeoutMs: 30_000 },
    );
    const stopping = other.stop();
    for (let i = 0; i < 5; i++) await revokeOne();
    await stopping;
    await revokeOne();
    expect(gateway.verifier.state().leaseHeld).toBe(true);
  } finally {
    await gateway.close();
  }
});
