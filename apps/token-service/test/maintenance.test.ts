import { generateKeyPairSync } from 'node:crypto';
import type { MaintenanceMethods } from '@latchkey/contracts';
import { type Caller, firstParty, maintenanceCaller } from '@latchkey/runtime';
import { asRole } from './database.js';
import { issue, JOBS_RPC_SECRET, type Person, type World, world } from './harness.js';

let w: World;
let admin: Person;
let maintenance: Caller<MaintenanceMethods>;

beforeAll(async () => {
  w = await world();
  admin = await w.signIn();
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

const count = async (table: string): Promise<number> =>
  (await w.database.query(`SELECT count(*)::int AS n FROM ${table}`))[0]!['n'];

test('pruning removes what is past its retention and nothing else, in bounded steps', async () => {
  const before = { keys: await count('idempotency_keys'), sessions: await count('sessions') };
  await w.database.query(
    `INSERT INTO idempotency_keys (actor, key, request_hash, token_id, created_at)
       SELECT 'a', n::text, '\\x00'::bytea, gen_random_uuid(), now() - interval '25 hours' FROM generate_series(1, 25) n
       UNION ALL SELECT 'b', 'recent', '\\x00'::bytea, gen_random_uuid(), now() - interval '23 hours'`,
  );
  await w.database.query(
    `INSERT INTO sessions (id, user_id, hash, ip, user_agent, created_at, seen_at, expires_at)
       SELECT gen_random_uuid(), (SELECT id FROM users LIMIT 1), sha256('x'), '', '', now(), now(), now() - interval '1 second'`,
  );
  expect(await maintenance.prune({ limit: 10 })).toEqual({ done: expect.any(Number), more: true });
  while ((await maintenance.prune({ limit: 10 })).more);
  expect(await count('idempotency_keys')).toBe(before.keys + 1);
  expect(await count('sessions')).toBe(before.sessions);
});

test('pruning creates the partitions of the months ahead, so that every audit event has one', async () => {
  const [last] = await w.database.query(
    `SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
     WHERE i.inhparent = 'audit_events'::regclass ORDER BY c.relname DESC OFFSET 1 LIMIT 1`,
  );
  await w.database.query(`DROP TABLE ${last!['relname']}`);
  const another = await w.another();
  const caller = maintenanceCaller({
    address: another.rpcAddress,
    authorization: firstParty(JOBS_RPC_SECRET),
    timeoutMs: 10_000,
  });
  await caller.prune({ limit: 10 });
  caller.close();
  expect((await w.database.query('SELECT to_regclass($1) AS made', [last!['relname']]))[0]!['made']).not.toBeNull();
});

test('a use after rotation is written into the audit log once for each token', async () => {
  const old = await issue(admin);
  await admin.call(`POST /v1/tokens/${old.id}/rotate`, { body: {} });
  const report = { tokenId: old.id, kind: 'used_after_rotation', ip: '192.0.2.7' };
  const responses = await Promise.all([maintenance.reportUse(report), maintenance.reportUse(report)]);
  expect(responses.filter((a) => a.recorded)).toHaveLength(1);
  expect((await maintenance.reportUse(report)).recorded).toBe(false);
  const fresh = await issue(admin);
  expect((await maintenance.reportUse({ ...report, tokenId: fresh.id })).recorded).toBe(false);
  await expect(maintenance.reportUse({ ...report, tokenId: 'x' })).rejects.toMatchObject({ code: 3 });
  const { body } = await admin.call<{ items: { details: object }[] }>('GET /v1/audit', {
    query: { tokenId: old.id, action: 'token.updated' },
  });
  expect(body.items).toMatchObject([{ details: { usedAfterRotation: { ip: '192.0.2.7' } } }]);
});

test('retention removes a head of the audit log and never a middle: old events that were sealed late stay', async () => {
  const at = new Date(Date.UTC(new Date().getUTCFullYear(), new Date().getUTCMonth() - 5, 15));
  await w.database.query(
    `INSERT INTO audit_events (id, at, actor_type, actor_name, action)
     SELECT gen_random_uuid(), $1, 'system', 'system', 'token.issued' FROM generate_series(1, 4)`,
    [at],
  );
  const { privateKey } = generateKeyPairSync('ed25519');
  const retaining = await w.another({
    AUDIT_SIGNING_KEY: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    AUDIT_RETENTION_MONTHS: '3',
    RETENTION_DATABASE_URL: asRole(w.database.url, 'latchkey_retention'),
  });
  const caller = maintenanceCaller({
    address: retaining.rpcAddress,
    authorization: firstParty(JOBS_RPC_SECRET),
    timeoutMs: 10_000,
  });
  while ((await caller.sealAudit({ limit: 1_000 })).more);
  const old = async () =>
    (await w.database.query('SELECT count(*)::int AS n FROM audit_events WHERE at = $1', [at]))[0]!['n'];
  await maintenance.prune({ limit: 10 });
  expect(await old()).toBe(4);
  // Their place in the chain is after events of today.
  await caller.prune({ limit: 10 });
  expect(await old()).toBe(4);
  caller.close();
});

test('tokens unused for longer than the policy allows are revoked with the reason policy, and no others', async () => {
  const [unused, used, fresh, tooYoung] = [
    await issue(admin),
    await issue(admin),
    await issue(admin),
    await issue(admin),
  ];
  const ago = (days: number) => new Date(Date.now() - days * 86_400_000);
  for (const { id } of [unused, used, fresh])
    await w.database.query('UPDATE tokens SET created_at = $2 WHERE id = $1', [id, ago(100)]);
  const use = (id: string, at: Date) =>
    w.database.query('INSERT INTO token_usage (token_id, last_used_at, usage_count) VALUES ($1, $2, 1)', [id, at]);
  await use(used.id, ago(40));
  await use(fresh.id, ago(20));
  const statusOf = async (id: string) =>
    (await admin.call<{ status: string; revocationReason: string }>(`GET /v1/tokens/${id}`)).body;
  expect(await maintenance.revokeIdle({ limit: 100 })).toEqual({ done: 0, more: false }); // no policy is set
  await w.database.query('UPDATE policy SET idle_days = 30');
  expect(await maintenance.revokeIdle({ limit: 1 })).toEqual({ done: 2, more: true });
  while ((await maintenance.revokeIdle({ limit: 1 })).more);
  for (const { id } of [unused, used])
    expect(await statusOf(id)).toMatchObject({ status: 'revoked', revocationReason: 'policy' });
  for (const { id } of [fresh, tooYoung]) expect(await statusOf(id)).toMatchObject({ status: 'active' });
  await w.database.query('UPDATE policy SET idle_days = 15');
  while ((await maintenance.revokeIdle({ limit: 1 })).more);
  expect(await statusOf(fresh.id)).toMatchObject({ status: 'revoked' });
  await w.database.query('UPDATE policy SET idle_days = NULL');
});
