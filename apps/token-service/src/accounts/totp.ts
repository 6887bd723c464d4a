import { createHmac, timingSafeEqual } from 'node:crypto';

/** Length of a time step and of a code: what every authenticator app takes without being told. */
const STEP_SECONDS = 30;
const DIGITS = 6;
/** Steps before and after the present one that are taken too, for clocks that differ (RFC 6238 section 5.2). */
const STEPS_AROUND = 1;

/** RFC 6238 with HMAC-SHA-1: the code of one time step. */
export function codeAt(secret: Buffer, step: number): string {
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(step));
  const mac = createHmac('sha1', secret).update(counter).digest();
  // RFC 4226 section 5.3: the last four bits say where the number stands.
  const at = (mac[mac.length - 1] ?? 0) & 15;
  const number = (mac.readUInt32BE(at) & 0x7fffffff) % 10 ** DIGITS;
  return String(number).padStart(DIGITS, '0');
}

/**
 * The time step that a code is of, if it is good at this moment and newer than the last one taken.
 * @param nowMs Unix milliseconds
 * @param lastStep step of the last code taken: neither it nor an older one is taken again
 * @returns null when the code is not good
 */
export function stepOf(secret: Buffer, code: string, nowMs: number, lastStep: number): number | null {
  const now = Math.floor(nowMs / 1_000 / STEP_SECONDS);
  let found: number | null = null;
  for (let step = now - STEPS_AROUND; step <= now + STEPS_AROUND; step++) {
    const expected = Buffer.from(codeAt(secret, Math.max(0, step)));
    const given = Buffer.from(code);
    if (expected.length === given.length && timingSafeEqual(expected, given) && step > lastStep) found = step;
  }
  return found;
}

const BASE32 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';

/** RFC 4648 section 6, without padding. */
export function base32(bytes: Buffer): string {
  let bits = '';
  for (const byte of bytes) bits += byte.toString(2).padStart(8, '0');
  return (bits.match(/.{1,5}/g) ?? []).map((five) => BASE32[Number.parseInt(five.padEnd(5, '0'), 2)]).join('');
}

/** The address that authenticator apps read from a QR code. */
export function otpauthUri(secret: Buffer, issuer: string, account: string): string {
  const label = `${encodeURIComponent(issuer)}:${encodeURIComponent(account)}`;
  return `otpauth://totp/${label}?secret=${base32(secret)}&issuer=${encodeURIComponent(issuer)}`;
}
