import { afterAll, beforeAll, expect, test } from '@jest/globals';
import type { MaintenanceMethods } from '@latchkey/contracts';
import { type Caller, firstParty, maintenanceCaller } from '@latchkey/runtime';
import { issue, JOBS_RPC_SECRET, type Person, type World, world } from './harness.js';

let w: World;
let person: Person;
let maintenance: Caller<MaintenanceMethods>;
beforeAll(async () => {
  w = await world();
  person = await w.member();
  maintenance = maintenanceCaller({
    address: w.service.rpcAddress,
    authorization: firstParty(JOBS_RPC_SECRET),
    timeoutMs: 10_000,
  });
});
afterAll(async () => {
  maintenance.close();
  await w.close();
});

async function sweep(): Promise<void> {
  while ((await maintenance.expireDue({ limit: 2 })).more);
}
const expiredEventsOf = async (id: string) =>
  (await w.database.query("SELECT 1 FROM audit_events WHERE action = 'token.expired' AND token_id = $1", [id])).length;
const setExpiry = (id: string, interval: string) =>
  w.database.query(`UPDATE tokens SET expires_at = now() + interval '${interval}' WHERE id = $1`, [id]);
/** Moves the watermark back: the service can write such a value itself. */
const rewindWatermark = (interval: string) =>
  w.database.query(`UPDATE expiry_mark SET at = now() - interval '${interval}'`);

test('an expiry that the watermark had passed before its token was written is still recorded', async () => {
  const late = await issue(person, { expiresInSeconds: 3600 });
  await sweep();
  await setExpiry(late.id, '-1 hour');
  await sweep();
  expect(await expiredEventsOf(late.id)).toBe(1);
});

test('a scan from an earlier watermark records no expiry twice, and those that were missed', async () => {
  const tokens = await Promise.all([1, 2, 3, 4, 5].map(() => issue(person, { expiresInSeconds: 3600 })));
  for (const { id } of tokens) await setExpiry(id, '-30 minutes');
  // Only the watermark can lead to this one.
  await w.database.query('DELETE FROM expiry_soon WHERE token_id = $1', [tokens[0]!.id]);
  await rewindWatermark('1 hour');
  await sweep();
  await rewindWatermark('1 hour');
  await sweep();
  expect(await Promise.all(tokens.map(({ id }) => expiredEventsOf(id)))).toEqual([1, 1, 1, 1, 1]);
});

test('a watermark ahead of the clock goes back, and expiries before it are recorded', async () => {
  await w.database.query("UPDATE expiry_mark SET at = now() + interval '1 day'");
  await sweep();
  const token = await issue(person, { expiresInSeconds: 3600 });
  await setExpiry(token.id, '1 second');
  await w.database.query('DELETE FROM expiry_soon');
  await w.database.query('SELECT pg_sleep(1.1)');
  await sweep();
  expect(await expiredEventsOf(token.id)).toBe(1);
});

test('no expiry is recorded for a revoked token, nor for one that expires later', async () => {
  const [revoked, active] = await Promise.all([1, 2].map(() => issue(person, { expiresInSeconds: 3600 })));
  await person.call(`POST /v1/tokens/${revoked!.id}/revoke`);
  await setExpiry(revoked!.id, '-1 second');
  await sweep();
  expect([await expiredEventsOf(revoked!.id), await expiredEventsOf(active!.id)]).toEqual([0, 0]);
});
