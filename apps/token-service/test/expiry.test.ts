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
const toldOf = async (id: string) =>
  (await w.database.query("SELECT 1 FROM audit_events WHERE action = 'token.expired' AND token_id = $1", [id])).length;
const endsIn = (id: string, interval: string) =>
  w.database.query(`UPDATE tokens SET expires_at = now() + interval '${interval}' WHERE id = $1`, [id]);
/** As time passes for the whole table: nothing is written that the service would not write. */
const lookBack = (interval: string) => w.database.query(`UPDATE expiry_mark SET at = now() - interval '${interval}'`);

test('an end that the mark has passed before its token was written is recorded all the same', async () => {
  const late = await issue(person, { expiresInSeconds: 3600 });
  await sweep();
  await endsIn(late.id, '-1 hour');
  await sweep();
  expect(await toldOf(late.id)).toBe(1);
});

test('looking again from an earlier mark tells of nothing twice, and of what was passed over', async () => {
  const tokens = await Promise.all([1, 2, 3, 4, 5].map(() => issue(person, { expiresInSeconds: 3600 })));
  for (const { id } of tokens) await endsIn(id, '-30 minutes');
  // Nothing but the mark can lead to this one.
  await w.database.query('DELETE FROM expiry_soon WHERE token_id = $1', [tokens[0]!.id]);
  await lookBack('1 hour');
  await sweep();
  await lookBack('1 hour');
  await sweep();
  expect(await Promise.all(tokens.map(({ id }) => toldOf(id)))).toEqual([1, 1, 1, 1, 1]);
});

test('a mark ahead of the clock goes back, and what ends before it is recorded', async () => {
  await w.database.query("UPDATE expiry_mark SET at = now() + interval '1 day'");
  await sweep();
  const token = await issue(person, { expiresInSeconds: 3600 });
  await endsIn(token.id, '1 second');
  await w.database.query('DELETE FROM expiry_soon');
  await w.database.query('SELECT pg_sleep(1.1)');
  await sweep();
  expect(await toldOf(token.id)).toBe(1);
});

test('a revoked token does not expire, nor does one whose end lies ahead', async () => {
  const [revoked, living] = await Promise.all([1, 2].map(() => issue(person, { expiresInSeconds: 3600 })));
  await person.call(`POST /v1/tokens/${revoked!.id}/revoke`);
  await endsIn(revoked!.id, '-1 second');
  await sweep();
  expect([await toldOf(revoked!.id), await toldOf(living!.id)]).toEqual([0, 0]);
});
