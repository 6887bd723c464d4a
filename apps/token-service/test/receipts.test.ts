import { generateKeyPairSync, randomBytes } from 'node:crypto';
import {
  type Effect,
  type IssuedToken,
  type Receipt,
  type Token,
  type TokenEffect,
  verifyReceipt,
} from '@latchkey/contracts';
import { bearer, tokensCaller } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { issue, type Person, project, type World, world } from './harness.js';
import type { AuditEvent, Page } from './types.js';

const { privateKey, publicKey } = generateKeyPairSync('ed25519');
const RECEIPT_SIGNING_KEY = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();

let w: World;
let admin: Person;
beforeAll(async () => {
  w = await world({ env: { RECEIPT_SIGNING_KEY } });
  admin = await w.signIn();
});
afterAll(() => w.close());

const revoke = (person: Person, id: string, body = {}) =>
  person.call<TokenEffect>(`POST /v1/tokens/${id}/revoke`, { body });
const read = async (person: Person, id: string) => (await person.call<Token>(`/v1/tokens/${id}`)).body;

/** The change that a receipt proves. */
function proven(receipt: Receipt | null | undefined) {
  const verdict = verifyReceipt(receipt!, [publicKey]);
  if (!verdict.ok) throw new Error(verdict.reason);
  return verdict.change;
}

/** A verifier of a third party, with a lease until that lapses. */
async function thirdParty(name: string): Promise<IssuedToken> {
  const token = await issue(admin, { name, scopes: ['tokens:verify'] });
  const rpc = tokensCaller({ address: w.service.rpcAddress, authorization: bearer(token.secret) });
  await rpc.renew({
    verifierId: '',
    name,
    cursor: null,
    claim: randomBytes(32).toString('base64url'),
    version: '0.2.0',
  });
  rpc.close();
  return token;
}

test('a revocation returns a receipt signed for its own audit event, which is stored with the token', async () => {
  const person = await w.member();
  const { id } = await issue(person);
  const { body } = await revoke(person, id, { reason: 'exposed' });
  const change = proven(body.receipt);
  expect(change).toMatchObject({ action: 'token.revoked', reason: 'exposed', subject: { type: 'token', id } });
  const events = await admin.call<Page<AuditEvent>>('/v1/audit', { query: { tokenId: id, action: 'token.revoked' } });
  expect(events.body.items).toMatchObject([{ id: change.id, at: change.at }]);
  await waitFor(async () => (await read(person, id)).receipt !== null, { what: 'the stored receipt' });
  expect(proven((await read(person, id)).receipt)).toEqual(change);
  // A repeat returns the same.
  expect(proven((await revoke(person, id)).body.receipt)).toEqual(change);
});

test('a receipt without the owners of verifiers proves as much as one with them', async () => {
  const verifier = await thirdParty('billing');
  const person = await w.member();
  const { id } = await issue(person);
  const { body } = await revoke(person, id);
  expect(body.receipt!.verifiers).toMatchObject([{ name: 'billing', caller: { type: 'token' }, by: 'lease' }]);
  expect(JSON.stringify(body.receipt)).not.toContain(verifier.id);
  proven(body.receipt);
  await waitFor(async () => (await read(admin, id)).receipt !== null, { what: 'the stored receipt' });
  const { receipt } = await read(admin, id);
  expect(receipt!.verifiers[0]!.caller).toMatchObject({ id: verifier.id });
  proven(receipt);
});

test('of tokens revoked together, each has a receipt signed for its own revocation', async () => {
  const person = await w.member();
  const parent = await issue(person, { scopes: ['tokens:write'] });
  const child = await issue(w.bearer(parent.secret));
  const { body } = await revoke(person, parent.id, { reason: 'policy' });
  expect(proven(body.receipt).subject.id).toBe(parent.id);
  const others = [await issue(person), await issue(person)];
  await admin.call(`POST /v1/users/${person.user!.id}/revoke-tokens`, { body: { reason: 'owner_left' } });
  for (const [{ id }, reason] of [[child, 'policy'], ...others.map((token) => [token, 'owner_left'])] as [
    Token,
    string,
  ][]) {
    await waitFor(async () => (await read(person, id)).receipt !== null, { what: 'the stored receipt' });
    expect(proven((await read(person, id)).receipt)).toMatchObject({ reason, subject: { type: 'token', id } });
  }
});

test('a token that was revoked earlier and is confirmed only now has a receipt signed for its revocation', async () => {
  const person = await w.member();
  const [alone, together] = [await issue(person), await issue(person)];
  for (const { id } of [alone, together]) {
    await revoke(person, id, { reason: 'policy' });
    // As if the service had ended before it stored the receipt, long ago.
    await waitFor(async () => (await read(person, id)).receipt !== null, { what: 'the stored receipt' });
    await w.database.query(`DELETE FROM invalidations WHERE subject = '${id}'`);
    await w.database.query(`UPDATE tokens SET receipt = NULL WHERE id = '${id}'`);
  }
  const expected = (id: string) => ({ action: 'token.revoked', reason: 'policy', subject: { type: 'token', id } });
  expect(proven((await revoke(person, alone.id)).body.receipt)).toMatchObject(expected(alone.id));
  await admin.call(`POST /v1/users/${person.user!.id}/revoke-tokens`, { body: { reason: 'owner_left' } });
  await waitFor(async () => (await read(person, together.id)).receipt !== null, { what: 'the stored receipt' });
  expect(proven((await read(person, together.id)).receipt)).toMatchObject(expected(together.id));
});

test('receipts of other changes are signed for what they changed', async () => {
  const person = await w.member();
  const { id } = await issue(person);
  const effect = async (target: string, body?: object) =>
    proven((await admin.call<Effect>(target, body ? { body } : {})).body.receipt);
  expect(
    proven((await person.call<Effect>(`PATCH /v1/tokens/${id}`, { body: { disabled: true } })).body.receipt),
  ).toMatchObject({
    action: 'token.disabled',
    reason: null,
    subject: { type: 'token', id },
  });
  const projectId = await project(admin);
  const membership = `PUT /v1/projects/${projectId}/members/${person.user!.id}`;
  await admin.call(membership, { body: { role: 'editor' } });
  expect(await effect(membership, { role: 'viewer' })).toMatchObject({ action: 'member.changed' });
  expect(await effect(`DELETE /v1/projects/${projectId}`)).toMatchObject({
    action: 'project.closed',
    subject: { type: 'project', id: projectId },
  });
  expect(await effect(`PATCH /v1/users/${person.user!.id}`, { disabled: true })).toMatchObject({
    action: 'user.disabled',
    subject: { type: 'user', id: person.user!.id },
  });
});

test('a receipt edited in the database fails verification', async () => {
  const person = await w.member();
  const { id } = await issue(person);
  await revoke(person, id);
  await waitFor(async () => (await read(person, id)).receipt !== null, { what: 'the stored receipt' });
  await w.database.query(
    `UPDATE tokens SET receipt = jsonb_set(receipt, '{change,at}', '"2020-01-01T00:00:00.000Z"') WHERE id = '${id}'`,
  );
  expect(verifyReceipt((await read(person, id)).receipt!, [publicKey])).toMatchObject({ ok: false });
});

test('without a signing key a revocation is still effective, and its receipt has no signature', async () => {
  const unsigned = await w.another({ RECEIPT_SIGNING_KEY: '' });
  const person = await w.member();
  const { id } = await issue(person);
  const { body } = await revoke(w.as({ cookie: person.cookie! }, unsigned), id);
  expect(body).toMatchObject({ effective: true, receipt: { verifiers: expect.any(Array) } });
  expect(Object.keys(body.receipt!)).not.toEqual(expect.arrayContaining(['signature']));
  expect(verifyReceipt(body.receipt!, [publicKey])).toMatchObject({ ok: false });
});

test('a change that cannot be read leaves its receipt unsigned, and the revocation effective', async () => {
  const person = await w.member();
  const { id } = await issue(person);
  // This process has the change that it has just written; a repeat that confirms it again has to read it.
  const { body: before } = await revoke(person, id);
  await waitFor(async () => {
    const [row] = await w.database.query('SELECT receipt FROM tokens WHERE id = $1', [id]);
    return row!['receipt'];
  });
  expect(before.receipt).toHaveProperty('signature');
  await w.database.query('UPDATE tokens SET receipt = NULL WHERE id = $1', [id]);
  await w.database.query('REVOKE SELECT ON audit_events FROM latchkey_service');
  try {
    const { status, body } = await revoke(person, id);
    expect([status, body.effective]).toEqual([200, true]);
    expect(body.receipt).not.toHaveProperty('signature');
  } finally {
    await w.database.query('GRANT SELECT ON audit_events TO latchkey_service');
  }
  expect(w.logs()).toContain('a receipt is not signed');
});
