import { generateKeyPairSync } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import type { MaintenanceMethods } from '@latchkey/contracts';
import { type ChainVerdict as ChainState, proveExport, publicKeyOf } from '@latchkey/contracts';
import { type Caller, firstParty, maintenanceCaller } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { changeSchema } from './database.js';
import { issue, JOBS_RPC_SECRET, type Person, type World, world } from './harness.js';

const { privateKey, publicKey } = generateKeyPairSync('ed25519');
const AUDIT_SIGNING_KEY = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();

let w: World;
let admin: Person;
let maintenance: Caller<MaintenanceMethods>;

beforeAll(async () => {
  w = await world({ env: { AUDIT_SIGNING_KEY } });
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

/** Seals until no event waits: other tests keep transactions open in the same cluster, and sealing waits for them. */
const seal = () =>
  waitFor(async () => {
    await maintenance.sealAudit({ limit: 50 });
    const [row] = await w.database.query(
      'SELECT count(*)::int AS waiting FROM audit_events e WHERE NOT EXISTS (SELECT FROM audit_links l WHERE l.event_id = e.id)',
    );
    return row!['waiting'] === 0;
  });

test('GET /v1/audit shows an event without a place until it is sealed, and with place and hash after', async () => {
  await seal();
  const token = await issue(admin);
  const list = async () =>
    (
      await admin.call<{ items: { seq: number | null; hash: string | null }[] }>('GET /v1/audit', {
        query: { tokenId: token.id },
      })
    ).body.items;
  expect(await list()).toMatchObject([{ seq: null, hash: null }]);
  await seal();
  expect(await list()).toMatchObject([{ seq: expect.any(Number), hash: expect.stringMatching(/^[0-9a-f]{64}$/) }]);
});

test('GET /v1/audit/verify returns the state of the chain, and where it is broken after tampering', async () => {
  for (let i = 0; i < 5; i++) await issue(admin);
  await seal();
  const intact = await admin.call<ChainState>('GET /v1/audit/verify');
  expect(intact).toMatchObject({ status: 200, body: { ok: true, firstBroken: null } });
  expect(intact.body.events).toBeGreaterThan(5);
  expect(intact.body.checkpoints).toBeGreaterThan(0);
  await w.database.query(`SET session_replication_role = replica;
    UPDATE audit_events SET actor_name = actor_name || '!' WHERE id = (SELECT event_id FROM audit_links WHERE seq = 3)`);
  const tampered = await admin.call<ChainState>('GET /v1/audit/verify');
  expect(tampered.body).toMatchObject({ ok: false, firstBroken: { seq: 3 } });
  await w.database.query(`SET session_replication_role = replica;
    UPDATE audit_events SET actor_name = rtrim(actor_name, '!') WHERE id = (SELECT event_id FROM audit_links WHERE seq = 3)`);
});

test('GET /v1/audit/export returns the whole chain so that it verifies, and filtered events as they are', async () => {
  await seal();
  const token = await issue(admin);
  const whole = await admin.call('GET /v1/audit/export');
  expect(whole.headers.get('content-type')).toContain('ndjson');
  const key = publicKeyOf(publicKey.export({ type: 'spki', format: 'der' }).toString('base64'));
  const verdict = await proveExport(whole.text.split('\n'), [key]);
  expect(verdict).toMatchObject({ ok: true, firstBroken: null });
  expect(verdict.events).toBeGreaterThan(5);
  const lines = whole.text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  expect(lines.at(-1)).toMatchObject({ tokenId: token.id, seq: null });
  const filtered = await admin.call('GET /v1/audit/export', { query: { tokenId: token.id } });
  expect(filtered.text.trim().split('\n')).toHaveLength(1);
  const csv = await admin.call('GET /v1/audit/export', { query: { format: 'csv' } });
  expect(csv.text.split('\r\n')).toHaveLength(lines.length + 2);
});

test('only first-party services may seal the audit log', async () => {
  const other = maintenanceCaller({ address: w.service.rpcAddress, authorization: 'Bearer x', timeoutMs: 5_000 });
  await expect(other.sealAudit({ limit: 1 })).rejects.toMatchObject({ code: 16 });
  other.close();
});

test('the start-up log names the key that signs checkpoints, and never the private key', () => {
  expect(w.logs()).toContain('audit checkpoints are signed by this key');
  expect(w.logs()).toContain('"signer"');
  expect(w.logs()).not.toContain(AUDIT_SIGNING_KEY.split('\n')[1]);
});

test('a change whose audit event cannot be written is not made', async () => {
  await changeSchema(
    w.database,
    `CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
    CREATE TRIGGER full_disk BEFORE INSERT ON audit_events FOR EACH ROW EXECUTE FUNCTION disk_full()`,
  );
  const tokens = async () => (await w.database.query('SELECT count(*)::int AS n FROM tokens'))[0]!['n'];
  const before = await tokens();
  expect((await admin.call('POST /v1/tokens', { body: { name: 'lost' } })).status).toBe(503);
  expect(await tokens()).toBe(before);
  await changeSchema(w.database, 'DROP TRIGGER full_disk ON audit_events');
  expect((await admin.call('POST /v1/tokens', { body: { name: 'stored' } })).status).toBe(201);
});
