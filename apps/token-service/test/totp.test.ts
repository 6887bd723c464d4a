import { randomBytes } from 'node:crypto';
import { HOTP, Secret } from 'otpauth';
import { decrypt, encrypt } from '../src/accounts/encrypted.js';
import { base32, otpauthUri, stepOf } from '../src/accounts/totp.js';

// RFC 6238 appendix B, SHA-1, the last six of its eight digits.
const secret = Buffer.from('12345678901234567890');
const vectors: [seconds: number, code: string][] = [
  [59, '287082'],
  [1_111_111_109, '081804'],
  [1_111_111_111, '050471'],
  [1_234_567_890, '005924'],
  [2_000_000_000, '279037'],
  [20_000_000_000, '353130'],
];

const codeAt = (at: Buffer, counter: number) =>
  HOTP.generate({ secret: Secret.fromLatin1(at.toString('latin1')), counter });

it('TOTP accepts the codes of RFC 6238 appendix B, each for its step', () => {
  for (const [seconds, code] of vectors)
    expect(stepOf(secret, code, seconds * 1_000, 0)).toBe(Math.floor(seconds / 30));
});

it.each(['', '28708', '2870822', ' 287082', '287 82', '28708é', '２８７０８２', '287082\n'])(
  'TOTP does not accept %p as a code',
  (code) => {
    expect(stepOf(secret, code, 59_000, 0)).toBeNull();
  },
);

it('TOTP reads only the secret, not the memory around it', () => {
  const around = Buffer.concat([randomBytes(7), secret, randomBytes(9)]).subarray(7, 27);
  expect(stepOf(around, '287082', 59_000, 0)).toBe(1);
  expect(base32(around)).toBe(base32(secret));
});

it('TOTP accepts a code one step early or late, and none further off', () => {
  const [seconds, code] = vectors[3]!;
  const step = Math.floor(seconds / 30);
  for (const around of [-1, 0, 1]) expect(stepOf(secret, code, (seconds + around * 30) * 1_000, 0)).toBe(step);
  for (const around of [-2, 2]) expect(stepOf(secret, code, (seconds + around * 30) * 1_000, 0)).toBeNull();
});

it('TOTP accepts no code twice, nor an older one after it', () => {
  const nowMs = 1_234_567_890_000;
  const step = Math.floor(nowMs / 30_000);
  expect(stepOf(secret, codeAt(secret, step), nowMs, step)).toBeNull();
  expect(stepOf(secret, codeAt(secret, step - 1), nowMs, step)).toBeNull();
  expect(stepOf(secret, codeAt(secret, step + 1), nowMs, step)).toBe(step + 1);
});

it('TOTP writes base32 and URIs that authenticator apps read', () => {
  expect(base32(Buffer.from('foobar'))).toBe('MZXW6YTBOI');
  expect(otpauthUri(secret, 'keys.example.org', 'a b@example.org')).toBe(
    'otpauth://totp/keys.example.org:a%20b%40example.org?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=keys.example.org',
  );
});

it('decryption works with any configured pepper, only for the same purpose and unchanged data', () => {
  const [old, current] = ['o'.repeat(32), 'c'.repeat(32)];
  const encrypted = encrypt([old], 'a', secret);
  expect(decrypt([current, old], 'a', encrypted)).toEqual(secret);
  expect(decrypt([current], 'a', encrypted)).toBeNull();
  expect(decrypt([old], 'b', encrypted)).toBeNull();
  for (let at = 0; at < encrypted.length; at++) {
    const changed = Buffer.from(encrypted);
    changed[at]! ^= 1;
    expect(decrypt([old], 'a', changed)).toBeNull();
  }
  expect(decrypt([old], 'a', randomBytes(5))).toBeNull();
  expect(encrypt([old], 'a', secret)).not.toEqual(encrypted);
});
