import { randomBytes } from 'node:crypto';

let lastMs = 0;
let sequence = 0;
/** `xxxxxxxx-xxxx-7` of `lastMs`, shared by all ids of a millisecond. */
let head = '';

// Hexadecimal digits are drawn in bulk: a system call for each id would cost more than all the rest.
const POOL_BYTES = 4_096;
let pool = '';
let used = 0;

function randomDigits(n: number): string {
  if (used + n > pool.length) {
    pool = randomBytes(POOL_BYTES).toString('hex');
    used = 0;
  }
  used += n;
  return pool.slice(used - n, used);
}

function beginMillisecond(ms: number): void {
  lastMs = ms;
  const hex = ms.toString(16).padStart(12, '0');
  head = `${hex.slice(0, 8)}-${hex.slice(8)}-7`;
}

/**
 * A UUIDv7 (RFC 9562 section 5.7): 48 bits of Unix milliseconds, then a 12-bit counter so that ids of this process
 * ascend within a millisecond, then 62 random bits. Generated here, because PostgreSQL 17 cannot.
 */
export function newId(nowMs: number = Date.now()): string {
  if (nowMs > lastMs) {
    beginMillisecond(nowMs);
    sequence = Number.parseInt(randomDigits(3), 16) & 0x7ff;
  } else if (++sequence > 0xfff) {
    beginMillisecond(lastMs + 1);
    sequence = 0;
  }
  const digits = randomDigits(16);
  const variant = '89ab'[Number.parseInt(digits[0]!, 16) & 3];
  const counter = (sequence + 0x1000).toString(16).slice(1);
  return `${head}${counter}-${variant}${digits.slice(1, 4)}-${digits.slice(4)}`;
}

/** When a UUIDv7 was generated (RFC 9562 section 5.7), in Unix milliseconds. */
export const madeAtMs = (id: string): number => Number.parseInt(id.replaceAll('-', '').slice(0, 12), 16);
