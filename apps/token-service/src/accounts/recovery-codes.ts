import { createHmac, randomBytes } from 'node:crypto';
import { type Change } from '../database/index.js';
import { keyOf } from './encrypted.js';
import { base32 } from './totp.js';

const CODES = 10;
const CODE_BYTES = 10;
const PURPOSE = 'recovery codes';

/** Whether the input is a recovery code rather than a one-time code, which has six digits. */
export const isRecoveryCode = (code: string): boolean => !/^\d{6}$/.test(code);

const stored = (pepper: string, code: string): Buffer =>
  createHmac('sha256', keyOf(pepper, PURPOSE)).update(code.replaceAll('-', '').toUpperCase()).digest();

/**
 * Replaces a person's recovery codes by ten new ones: shown once, stored as HMACs under the current pepper.
 * @param pepperId id of the current one, the first of `peppers`
 */
export function makeRecoveryCodes(
  change: Change,
  { peppers, pepperId }: { peppers: readonly string[]; pepperId: number },
  userId: string,
): string[] {
  const codes = Array.from({ length: CODES }, () => base32(randomBytes(CODE_BYTES)).match(/.{4}/g)!.join('-'));
  dropRecoveryCodes(change, userId);
  change.write([
    'INSERT INTO recovery_codes (user_id, hash, pepper_id) SELECT $1, unnest($2::bytea[]), $3',
    [userId, codes.map((code) => stored(peppers[0] ?? '', code)), pepperId],
  ]);
  return codes;
}

/** Consumes a code. @returns the number left, or null when it is not one of the person's */
export async function useRecoveryCode(
  change: Change,
  peppers: readonly string[],
  userId: string,
  code: string,
): Promise<number | null> {
  const hashes = peppers.map((pepper) => stored(pepper, code));
  const used = await change.read([
    'DELETE FROM recovery_codes WHERE user_id = $1 AND hash = ANY ($2) RETURNING hash',
    [userId, hashes],
  ]);
  if (used.length === 0) return null;
  const [left] = await change.read<{ n: number }>([
    'SELECT count(*)::int AS n FROM recovery_codes WHERE user_id = $1',
    [userId],
  ]);
  return left!.n;
}

export function dropRecoveryCodes(change: Change, userId: string): void {
  change.write(['DELETE FROM recovery_codes WHERE user_id = $1', [userId]]);
}
