import { hash, randomBytes } from 'node:crypto';
import { type Database, rows, type Tx } from '../database/index.js';
import { base32 } from './totp.js';

const CODE_BYTES = 20;

const digest = (code: string): Buffer => hash('sha256', code.trim().toUpperCase(), 'buffer');

/** A code by which a person sets a password: 160 random bits, so that its SHA-256 alone can be kept. */
export const newResetCode = (): string => base32(randomBytes(CODE_BYTES));

/** @returns when it stops being good */
export async function keepResetCode(tx: Tx, userId: string, code: string, seconds: number): Promise<Date> {
  const expiresAt = new Date(Date.now() + seconds * 1_000);
  await tx.query('INSERT INTO password_resets (user_id, hash, expires_at) VALUES ($1, $2, $3)', [
    userId,
    digest(code),
    expiresAt,
  ]);
  return expiresAt;
}

/** Whether a code is good; it stays so. */
export async function isResetCode(db: Database, userId: string, code: string): Promise<boolean> {
  const found = await db.query(
    'SELECT 1 FROM password_resets WHERE user_id = $1 AND hash = $2 AND expires_at > now()',
    [userId, digest(code)],
  );
  return found.length > 0;
}

/** Uses a code up, and with it all others of the person. @returns whether it was good */
export async function useResetCode(tx: Tx, userId: string, code: string): Promise<boolean> {
  const used = await rows(
    tx,
    'DELETE FROM password_resets WHERE user_id = $1 AND hash = $2 AND expires_at > now() RETURNING user_id',
    [userId, digest(code)],
  );
  if (used.length === 0) return false;
  await dropResetCodes(tx, userId);
  return true;
}

export async function dropResetCodes(tx: Tx, userId: string): Promise<void> {
  await tx.query('DELETE FROM password_resets WHERE user_id = $1', [userId]);
}
