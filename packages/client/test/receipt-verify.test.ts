import { generateKeyPairSync, verify as verifySignature } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import {
  type Receipt,
  type ReceiptChange,
  receiptJwt,
  receiptKeys,
  receiptOfJwt,
  signerOf,
  signReceipt,
  verifyReceipt,
} from '@latchkey/contracts';
import { folder, latchkey } from './command.js';
import { json, serve } from './server.js';

const { privateKey, publicKey } = generateKeyPairSync('ed25519');

const CHANGE: ReceiptChange = {
  id: '01890000-0000-7000-8000-000000000001',
  action: 'token.revoked',
  at: '2026-11-22T09:00:00.000Z',
  reason: 'exposed',
  subject: { type: 'token', id: '01890000-0000-7000-8000-000000000002' },
};
const UNSIGNED: Receipt = {
  id: '01890000-0000-7000-8000-000000000006',
  confirmedAt: '2026-11-22T09:00:00.012Z',
  elapsedMs: 11.25,
  verifiers: [
    {
      id: '01890000-0000-7000-8000-000000000003',
      name: 'gateway-1',
      caller: { type: 'first_party' },
      by: 'ack',
      ms: 4,
    },
    {
      id: '01890000-0000-7000-8000-000000000004',
      name: 'billing',
      caller: { type: 'token', id: '01890000-0000-7000-8000-000000000005', name: 'verifier of billing' },
      by: 'lease',
      ms: 11.25,
    },
  ],
};
const signed = signReceipt(privateKey, UNSIGNED, CHANGE);

let dir: Awaited<ReturnType<typeof folder>>;
let key: string;
beforeAll(async () => {
  dir = await folder();
  key = await file('key.pem', publicKey.export({ type: 'spki', format: 'pem' }).toString());
});
afterAll(() => dir.remove());

async function file(name: string, text: string): Promise<string> {
  const at = path.join(dir.at, name);
  await writeFile(at, text);
  return at;
}

const verify = (what: unknown, ...args: string[]) =>
  latchkey(
    ['--json', 'receipt', 'verify', ...(args.length ? args : ['--key', key])],
    {},
    typeof what === 'string' ? what : JSON.stringify(what),
  );

test('proves a receipt, a response and a token that contain one, from a file or standard input, without a server', async () => {
  const token = { id: CHANGE.subject.id, name: 'nightly', receipt: signed };
  for (const what of [signed, token, { token, effective: true, receipt: signed, pending: [] }]) {
    const ran = await verify(what);
    expect([ran.code, ran.err]).toEqual([0, '']);
    expect(JSON.parse(ran.out)).toMatchObject({ ok: true, change: CHANGE, keyId: signerOf(publicKey) });
  }
  const fromFile = await file('receipt.json', JSON.stringify(signed, null, 2));
  expect(await verify('', fromFile, '--key', key)).toMatchObject({ code: 0 });
});

test('prints what is proven, and what is not', async () => {
  const ran = await latchkey(['receipt', 'verify', '--key', key], {}, JSON.stringify(signed));
  expect(ran.code).toBe(0);
  expect(ran.out).toContain(`token ${CHANGE.subject.id}`);
  expect(ran.out).toMatch(/billing .*its lease expired/);
  expect(ran.err).toMatch(/^Proven: [\s\S]+^Not proven: /m);
});

test('proves a receipt with redacted callers, and shows nothing that is not signed', async () => {
  const redacted = signed.verifiers.map((v) => ({ ...v, caller: { type: v.caller!.type } }));
  expect(await verify({ ...signed, verifiers: redacted })).toMatchObject({ code: 0 });
  const [first, second] = signed.verifiers;
  const renamed = { ...second!, caller: { ...second!.caller!, name: 'somebody else' } };
  const ran = await verify({ ...signed, verifiers: [first, renamed], weather: 'fine' });
  expect(ran.code).toBe(0);
  expect(ran.out).not.toMatch(/somebody else|weather/);
});

const [gateway, billing] = signed.verifiers;
const TAMPERED: [what: string, Receipt][] = [
  ['another id', { ...signed, id: CHANGE.id }],
  ['no id', { ...signed, id: undefined }],
  ['a ledger that was not said', { ...signed, ledger: 'written' }],
  ['another token', { ...signed, change: { ...CHANGE, subject: { type: 'token', id: CHANGE.id } } }],
  ['another reason', { ...signed, change: { ...CHANGE, reason: 'superseded' } }],
  ['no reason', { ...signed, change: { ...CHANGE, reason: null } }],
  ['another event', { ...signed, change: { ...CHANGE, id: CHANGE.subject.id } }],
  ['another action', { ...signed, change: { ...CHANGE, action: 'token.disabled' } }],
  ['an earlier change', { ...signed, change: { ...CHANGE, at: '2026-11-22T08:00:00.000Z' } }],
  ['an earlier confirmation', { ...signed, confirmedAt: CHANGE.at }],
  ['a shorter wait', { ...signed, elapsedMs: 1 }],
  ['one verifier fewer', { ...signed, verifiers: [gateway!] }],
  ['one verifier more', { ...signed, verifiers: [gateway!, billing!, { ...billing!, id: CHANGE.id }] }],
  ['another order', { ...signed, verifiers: [billing!, gateway!] }],
  ['another confirmation', { ...signed, verifiers: [gateway!, { ...billing!, by: 'ack' }] }],
  ['another name', { ...signed, verifiers: [{ ...gateway!, name: 'gateway-2' }, billing!] }],
  ['another type of caller', { ...signed, verifiers: [gateway!, { ...billing!, caller: { type: 'first_party' } }] }],
  [
    'another signature',
    { ...signed, signature: signReceipt(privateKey, UNSIGNED, { ...CHANGE, reason: null }).signature },
  ],
  ['half a signature', { ...signed, signature: signed.signature!.slice(0, 40) }],
];
test.each(TAMPERED)('detects %s', (_what, receipt) => {
  expect(verifyReceipt(signed, [publicKey])).toMatchObject({ ok: true });
  expect(verifyReceipt(receipt, [publicKey])).toEqual({
    ok: false,
    reason: expect.stringContaining('not what was signed'),
  });
});

test('exits with code 11 and the reason when a receipt was changed', async () => {
  const ran = await verify(TAMPERED[0]![1]);
  expect([ran.code, JSON.parse(ran.out)]).toEqual([11, { ok: false, reason: expect.stringMatching(/was changed/) }]);
});

test('accepts only signatures of the given keys', async () => {
  const other = generateKeyPairSync('ed25519');
  const pem = await file('other.pem', other.publicKey.export({ type: 'spki', format: 'pem' }).toString());
  const ran = await verify(signed, '--key', pem);
  expect([ran.code, JSON.parse(ran.out).reason]).toEqual([11, expect.stringContaining('no trusted key')]);
  // Nor one that only names that key.
  const forged = { ...signReceipt(other.privateKey, UNSIGNED, CHANGE), keyId: signerOf(publicKey) };
  expect(await verify(forged)).toMatchObject({ code: 11 });
  expect(await verify(signed, '--key', pem, '--key', key)).toMatchObject({ code: 0 });
});

test('rejects a receipt without a signature', async () => {
  const { signature: _, ...withoutSignature } = signed;
  const { change: __, ...withoutChange } = signed;
  for (const receipt of [UNSIGNED, withoutSignature, withoutChange]) {
    const ran = await verify(receipt);
    expect([ran.code, JSON.parse(ran.out).reason]).toEqual([11, expect.stringContaining('not signed')]);
  }
});

test('reports input that is truncated, no receipt, too large or missing, and missing keys', async () => {
  const text = JSON.stringify(signed);
  const cases: [unknown, string[], RegExp][] = [
    [text.slice(0, -20), [], /not whole/],
    ['', [], /not whole/],
    [[signed], [], /no receipt/],
    [{ effective: false, receipt: null }, [], /not confirmed yet/],
    [{ ...signed, verifiers: undefined }, [], /no receipt: verifiers/],
    [' '.repeat(5 * 1024 * 1024), [], /at most/],
    ['', ['/nonexistent', '--key', key], /cannot read/],
    [text, ['-'], /give --key or --keys/],
    [text, ['--keys', await file('set', '{"keys":[]}')], /contains no Ed25519/],
    [text, ['--keys', '/nonexistent'], /cannot read/],
    [text, ['--key', await file('text', 'nothing of use')], /contains no Ed25519/],
  ];
  for (const [what, args, message] of cases) {
    const ran = await verify(what, ...args);
    expect([ran.code, ran.out]).toEqual([2, '']);
    expect(ran.err).toMatch(message);
  }
});

test('a receipt is a JSON Web Token as well, which any JWT library can verify', () => {
  const [header = '', payload = '', signature = ''] = receiptJwt(signed)!.split('.');
  const decoded = (part: string) => JSON.parse(Buffer.from(part, 'base64url').toString());
  expect(decoded(header)).toEqual({ alg: 'EdDSA', kid: signerOf(publicKey), typ: 'latchkey-receipt+jwt' });
  expect(decoded(payload)).toMatchObject({
    v: 2,
    jti: UNSIGNED.id,
    change: CHANGE,
    confirmedAt: UNSIGNED.confirmedAt,
  });
  expect(
    verifySignature(null, Buffer.from(`${header}.${payload}`), publicKey, Buffer.from(signature, 'base64url')),
  ).toBe(true);
  expect(receiptJwt(UNSIGNED)).toBeUndefined();
});

test('accepts a receipt as a JSON Web Token, and keys as a set, from a file or a URL', async () => {
  const jwt = receiptJwt(signed)!;
  const set = receiptKeys([generateKeyPairSync('ed25519').publicKey, publicKey]);
  const server = await serve((_, response) => json(response, 200, set));
  try {
    for (const keys of [await file('keys.json', JSON.stringify(set)), `${server.baseUrl}/v1/receipts/keys`]) {
      const ran = await verify(`${jwt}\n`, '--keys', keys);
      expect([ran.code, ran.err]).toEqual([0, '']);
      expect(JSON.parse(ran.out)).toMatchObject({ ok: true, change: CHANGE, keyId: signerOf(publicKey) });
    }
  } finally {
    await server.stop();
  }
  const [header, payload = '', signature] = jwt.split('.');
  const other = Buffer.from(Buffer.from(payload, 'base64url').toString().replace('exposed', 'policy'));
  expect((await verify([header, other.toString('base64url'), signature].join('.'))).code).toBe(11);
  for (const text of [`${header}.${payload}`, `${jwt}.`, `${payload}.${payload}.${signature}`, 'a.b.c'])
    expect([text, receiptOfJwt(text)]).toEqual([text, undefined]);
  expect((await verify('a.b.c')).code).toBe(2);
});

test('a receipt without an id, signed with the key of the audit log by an earlier version, is still proven', async () => {
  const audit = {
    keyId: '73d5f316655b8d37',
    signature: 'WGJNFldm4XQU9RT78IyG1nCHUk-jYslg2yQFt0VM6SD4qLiEVKnOc51DN58wlDZRaWn_gOwssQ64f_-ovRS1Cg',
  };
  const { id: _, ...before } = UNSIGNED;
  const pem = await file(
    'audit.pem',
    `-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAW4qs4NW3yZeWeaQgwl0fbjptatumIc3N/l/TYw+ubok=
-----END PUBLIC KEY-----
`,
  );
  const old: Receipt = { ...before, change: CHANGE, ...audit };
  for (const form of [old, receiptJwt(old)]) {
    const ran = await verify(form, '--key', key, '--key', pem);
    expect(JSON.parse(ran.out)).toMatchObject({ ok: true, keyId: audit.keyId });
  }
  expect((await verify({ ...UNSIGNED, change: CHANGE, ...audit }, '--key', pem)).code).toBe(11);
});
