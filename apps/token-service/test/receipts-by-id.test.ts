import { createPublicKey, generateKeyPairSync, type JsonWebKey, type KeyObject, verify } from 'node:crypto';
import {
  type Effect,
  type Receipt,
  type ReceiptKeys,
  type RevokedToken,
  signerOf,
  verifyReceipt,
} from '@latchkey/contracts';
import { firstParty, maintenanceCaller, newId } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { asRole } from './database.js';
import { issue, JOBS_RPC_SECRET, type Person, project, type World, world } from './harness.js';

const pem = (key: KeyObject) => key.export({ type: 'pkcs8', format: 'pem' }).toString();
const { privateKey } = generateKeyPairSync('ed25519');
const retired = generateKeyPairSync('ed25519').publicKey;

let w: World;
let admin: Person;
beforeAll(async () => {
  w = await world({
    env: {
      RECEIPT_SIGNING_KEY: pem(privateKey),
      RECEIPT_RETIRED_KEYS: retired.export({ type: 'spki', format: 'pem' }).toString(),
    },
  });
  admin = await w.signIn();
});
afterEach(() => w.database.query('DELETE FROM leases'));
afterAll(() => w.close());

const revoke = (person: Person, id: string, body = {}) =>
  person.call<RevokedToken>(`POST /v1/tokens/${id}/revoke`, { body });
const read = (person: Person, id: string) => person.call<Receipt>(`/v1/receipts/${id}`);
const asJwt = (person: Person, id: string) =>
  person.call<{ code?: string }>(`/v1/receipts/${id}`, { headers: { accept: 'application/jwt' } });
const decoded = (part = '') => JSON.parse(Buffer.from(part, 'base64url').toString());

/** A third party's verifier that never responds. */
const unresponsive = (tokenId: string) =>
  w.database.query(
    `INSERT INTO leases (verifier_id, name, caller, holder, renewal, lease_ms, renewed_at)
     VALUES (gen_random_uuid(), 'billing', 'token:' || $1::text, 'x', pg_current_xact_id(), 1500, now())`,
    [tokenId],
  );

test('a receipt is found by its id right after the response, for every kind of change, at every replica', async () => {
  const other = await w.another();
  const person = await w.member();
  const projectId = await project(admin);
  const [one, exposed, disabled, ...many] = await Promise.all(Array.from({ length: 6 }, () => issue(person)));
  const membership = `/v1/projects/${projectId}/members/${person.user.id}`;
  await admin.call(`PUT ${membership}`, { body: { role: 'editor' } });
  const changes: [Person, string, object?][] = [
    [person, `POST /v1/tokens/${one!.id}/revoke`, { reason: 'policy' }],
    [person, `POST /v1/tokens/${one!.id}/revoke`, {}],
    [person, `POST /v1/tokens/${exposed!.id}/revoke`, { reason: 'exposed' }],
    [person, `PATCH /v1/tokens/${disabled!.id}`, { disabled: true }],
    [person, `POST /v1/tokens/${many[0]!.id}/rotate`, {}],
    [person, 'POST /v1/tokens/revoke', { filter: { owner: 'me' }, reason: 'policy' }],
    [admin, `POST /v1/users/${person.user.id}/revoke-tokens`, {}],
    [admin, `PUT ${membership}`, { role: 'viewer' }],
    [admin, `DELETE /v1/projects/${projectId}`],
    [admin, `PATCH /v1/users/${person.user.id}`, { disabled: true }],
    [await w.signIn(), 'POST /v1/tokens/revoke-all', { reason: 'policy', confirm: 'revoke everything' }],
  ];
  const reader = w.as({ cookie: admin.cookie! }, other);
  for (const [by, target, body] of changes) {
    const response = await by.call<Effect>(target, body ? { body } : {});
    const { receipt } = response.body;
    if (receipt === null) {
      // Nothing was left to revoke.
      expect([target, response.body.effective]).toEqual([`POST /v1/users/${person.user.id}/revoke-tokens`, true]);
      continue;
    }
    expect([target, await read(reader, receipt!.id!)]).toMatchObject([target, { status: 200, body: receipt }]);
  }
});

test('a receipt read by id equals the one of its token, and tokens revoked together have one each', async () => {
  const person = await w.member();
  const tokens = [await issue(person), await issue(person)];
  const { body } = await admin.call<Effect>(`POST /v1/users/${person.user.id}/revoke-tokens`, { body: {} });
  const own = await Promise.all(
    tokens.map(async ({ id }) => {
      const receipt = await waitFor(
        async () => (await person.call<{ receipt: Receipt | null }>(`/v1/tokens/${id}`)).body.receipt,
        { what: 'the stored receipt' },
      );
      expect(await read(person, receipt.id!)).toMatchObject({ status: 200, body: receipt });
      return receipt.id;
    }),
  );
  expect(new Set([...own, body.receipt!.id]).size).toBe(3);
});

test('a receipt is a JWT that anyone can verify with the published key set', async () => {
  const person = await w.member();
  const { id } = await issue(person);
  const { receipt } = (await revoke(person, id, { reason: 'exposed' })).body;
  const response = await asJwt(person, receipt!.id!);
  expect([response.status, response.headers.get('content-type')]).toEqual([200, 'application/jwt']);
  expect(response.headers.get('vary')).toBe('accept');
  const published = await w.as().call<ReceiptKeys>('/v1/receipts/keys');
  expect(published.headers.get('content-type')).toBe('application/jwk-set+json; charset=utf-8');
  expect(published.headers.get('cache-control')).toBe('public, max-age=300');
  expect(published.body.keys.map(({ kid }) => kid)).toEqual([signerOf(privateKey), signerOf(retired)]);
  expect(JSON.stringify(published.body)).not.toContain('"d"');
  const [header, payload, signature] = response.text.split('.');
  const { kid, ...rest } = decoded(header);
  expect(rest).toEqual({ alg: 'EdDSA', typ: 'latchkey-receipt+jwt' });
  const jwk = published.body.keys.find((key) => key.kid === kid);
  const key = createPublicKey({ key: jwk as unknown as JsonWebKey, format: 'jwk' });
  expect(verify(null, Buffer.from(`${header}.${payload}`), key, Buffer.from(signature!, 'base64url'))).toBe(true);
  expect(decoded(payload)).toMatchObject({
    v: 2,
    jti: receipt!.id,
    change: { action: 'token.revoked', reason: 'exposed', subject: { type: 'token', id } },
  });
});

test('a receipt is JSON unless the request prefers a JWT', async () => {
  const person = await w.member();
  const { receipt } = (await revoke(person, (await issue(person)).id)).body;
  for (const accept of ['*/*', 'application/json, application/jwt', 'application/jwtx']) {
    const response = await person.call(`/v1/receipts/${receipt!.id}`, { headers: { accept } });
    expect([accept, response.body]).toEqual([accept, receipt]);
  }
  const preferred = await person.call(`/v1/receipts/${receipt!.id}`, {
    headers: { accept: 'application/jwt, application/json;q=0.5' },
  });
  expect(preferred.headers.get('content-type')).toBe('application/jwt');
});

test('a receipt as JWT is 404 not_signed without a key, and when it covers several changes', async () => {
  const keyless = await w.another({ RECEIPT_SIGNING_KEY: '', RECEIPT_RETIRED_KEYS: '' });
  expect(w.logs()).toContain('RECEIPT_SIGNING_KEY is not set');
  expect((await w.as({}, keyless).call('/v1/receipts/keys')).body).toEqual({ keys: [] });
  const person = await w.member();
  const there = w.as({ cookie: person.cookie! }, keyless);
  const unsigned = (await revoke(there, (await issue(person)).id)).body.receipt!;
  expect(unsigned).not.toHaveProperty('signature');
  await Promise.all([issue(person), issue(person)]);
  const several = await admin.call<Effect>(`POST /v1/users/${person.user.id}/revoke-tokens`, { body: {} });
  for (const id of [unsigned.id!, several.body.receipt!.id!]) {
    expect(await read(person, id)).toMatchObject({ status: 200 });
    expect(await asJwt(person, id)).toMatchObject({ status: 404, body: { code: 'not_signed' } });
  }
});

test('a receipt is found only by callers who may see what it is about', async () => {
  const [person, stranger] = [await w.member(), await w.member()];
  const projectId = await project(person);
  await person.call(`PUT /v1/projects/${projectId}/members/${stranger.user.id}`, { body: { role: 'viewer' } });
  const own = (await revoke(person, (await issue(person)).id)).body.receipt!.id!;
  const ofProject = (await revoke(person, (await issue(person, { kind: 'prj', projectId })).id)).body.receipt!.id!;
  const everything = await (await w.signIn()).call<Effect>('POST /v1/tokens/revoke-all', {
    body: { reason: 'policy', confirm: 'revoke everything' },
  });
  const statuses = async (by: Person) =>
    Promise.all([own, ofProject, everything.body.receipt!.id!].map(async (id) => (await read(by, id)).status));
  expect(await statuses(person)).toEqual([200, 200, 404]);
  expect(await statuses(stranger)).toEqual([404, 200, 404]);
  expect(await statuses(admin)).toEqual([200, 200, 200]);
  expect(await statuses(w.as())).toEqual([401, 401, 401]);
  // What they may see now counts.
  const removed = await person.call<Effect>(`DELETE /v1/projects/${projectId}/members/${stranger.user.id}`);
  expect(await statuses(stranger)).toEqual([404, 404, 404]);
  expect(await read(stranger, removed.body.receipt!.id!)).toMatchObject({ status: 200 });
  expect(await asJwt(stranger, own)).toMatchObject({ status: 404, body: { code: 'not_found' } });
  expect(await read(admin, newId())).toMatchObject({ status: 404, body: { code: 'not_found' } });
});

test('a receipt names the owners of verifiers to administrators only, and verifies for everyone', async () => {
  const verifier = await issue(admin, { name: 'verifier of billing', scopes: ['tokens:verify'] });
  const person = await w.member();
  const { id } = await issue(person);
  // Last: its lease is reaped once it has lapsed.
  await unresponsive(verifier.id);
  const { receipt } = (await revoke(person, id)).body;
  const [seen, whole] = [await read(person, receipt!.id!), await read(admin, receipt!.id!)];
  expect(seen.body.verifiers).toMatchObject([{ name: 'billing', caller: { type: 'token' } }]);
  expect(seen.text).not.toContain(verifier.id);
  expect(whole.body.verifiers).toMatchObject([{ caller: { id: verifier.id } }]);
  for (const { body } of [seen, whole])
    expect(verifyReceipt(body, [createPublicKey(privateKey)])).toMatchObject({ ok: true });
  const jwts = await Promise.all([person, admin].map(async (by) => (await asJwt(by, receipt!.id!)).text));
  expect(jwts[0]).toBe(jwts[1]);
});

test('a receipt that cannot be stored leaves the revocation effective and signed', async () => {
  const person = await w.member();
  const { id } = await issue(person);
  await w.database.query('REVOKE INSERT ON receipts FROM latchkey_service');
  try {
    const { status, body } = await revoke(person, id);
    expect([status, body.effective]).toEqual([200, true]);
    expect(verifyReceipt(body.receipt!, [createPublicKey(privateKey)])).toMatchObject({ ok: true });
    expect(await read(person, body.receipt!.id!)).toMatchObject({ status: 404 });
  } finally {
    await w.database.query('GRANT INSERT ON receipts TO latchkey_service');
  }
  expect(w.logs()).toContain('a receipt was not kept');
  // A repeat confirms it again and stores it.
  const { receipt } = (await revoke(person, id)).body;
  expect(await read(person, receipt!.id!)).toMatchObject({ status: 200, body: receipt });
});

test('receipts are removed with the audit events of their month, in bounded steps, by the retention role only', async () => {
  const months = (n: number) => Date.UTC(new Date().getUTCFullYear(), new Date().getUTCMonth() - n, 15);
  const idAt = (ms: number) => {
    const hex = ms.toString(16).padStart(12, '0');
    return `${hex.slice(0, 8)}-${hex.slice(8)}${newId().slice(13)}`;
  };
  const old = Array.from({ length: 5 }, (_, i) => idAt(months(5) + i));
  const young = [idAt(months(3)), newId()];
  for (const id of [...old, ...young])
    await w.database.query(`INSERT INTO receipts (id, body) VALUES ($1, '{}')`, [id]);
  const left = async () => {
    const rows = await w.database.query('SELECT id FROM receipts WHERE id = ANY ($1)', [[...old, ...young]]);
    return rows.map((row) => row['id']).sort();
  };
  const prune = async (at: { rpcAddress: string }) => {
    const authorization = firstParty(JOBS_RPC_SECRET);
    const jobs = maintenanceCaller({ address: at.rpcAddress, authorization, timeoutMs: 10_000 });
    const { more } = await jobs.prune({ limit: 3 });
    jobs.close();
    return more;
  };
  await prune(w.service);
  expect(await left()).toHaveLength(7);
  const retaining = await w.another({
    AUDIT_SIGNING_KEY: pem(generateKeyPairSync('ed25519').privateKey),
    AUDIT_RETENTION_MONTHS: '3',
    RETENTION_DATABASE_URL: asRole(w.database.url, 'latchkey_retention'),
  });
  expect(await prune(retaining)).toBe(true);
  expect(await left()).toHaveLength(4);
  while (await prune(retaining));
  expect(await left()).toEqual(young.sort());
  const [grants] = await w.database.query(
    `SELECT has_table_privilege('latchkey_service', 'receipts', 'UPDATE, DELETE, TRUNCATE') AS service,
       has_table_privilege('latchkey_retention', 'receipts', 'INSERT, UPDATE') AS retention`,
  );
  expect(grants).toEqual({ service: false, retention: false });
});

test('one key cannot sign both receipts and checkpoints', async () => {
  await expect(w.another({ AUDIT_SIGNING_KEY: pem(privateKey) })).rejects.toThrow(
    'AUDIT_SIGNING_KEY and RECEIPT_SIGNING_KEY hold the same secret',
  );
});
