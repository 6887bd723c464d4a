import { hash, randomBytes } from 'node:crypto';
import { type Change, type Database } from '../database/index.js';
import { base32 } from './totp.js';

const CODE_BYTES = 20;

/** How long a code that an administrator or an email gives is valid. */
export const RESET_SECONDS = 3_600;

/** What is stored of a code. */
export const codeDigest = (code: string): Buffer => hash('sha256', code.trim().toUpperCase(), 'buffer');

/** A code for setting a password: 160 random bits, so storing its SHA-256 is enough. */
export const newResetCode = (): string => base32(randomBytes(CODE_BYTES));

/** @returns when it expires */
export function storeResetCode(change: Change, userId: string, code: string, seconds: number): Date {
  const expiresAt = new Date(Date.now() + seconds * 1_000);
  change.write([
    'INSERT INTO password_resets (user_id, hash, expires_at) VALUES ($1, $2, $3)',
    [userId, codeDigest(code), expiresAt],
  ]);
  return expiresAt;
}

/** Whether a code is valid; does not consume it. */
export async function isResetCode(db: Database, userId: string, code: string): Promise<boolean> {
  const found = await db.query(
    'SELECT 1 FROM password_resets WHERE user_id = $1 AND hash = $2 AND expires_at > now()',
    [userId, codeDigest(code)],
  );
  return found.length > 0;
}

/** Consumes a code, and deletes all others of the person. @returns whether it was valid */
export async function useResetCode(change: Change, userId: string, code: string): Promise<boolean> {
  const used = await change.read([
    'DELETE FROM password_resets WHERE user_id = $1 AND hash = $2 AND expires_at > now() RETURNING user_id',
    [userId, codeDigest(code)],
  ]);
  if (used.length === 0) return false;
  dropResetCodes(change, userId);
  return true;
}

export function dropResetCodes(change: Change, userId: string): void {
  change.write(['DELETE FROM password_resets WHERE user_id = $1', [userId]]);
}
