import { Secret, TOTP } from 'otpauth';

/** Length of a time step and of a code: what every authenticator app takes without being told. */
const STEP_SECONDS = 30;
const DIGITS = 6;
/** Steps before and after the present one that are taken too, for clocks that differ (RFC 6238 section 5.2). */
const STEPS_AROUND = 1;

/** Of a copy: the buffer behind small Buffers holds other things too. */
const secretOf = (bytes: Buffer): Secret => new Secret({ buffer: Uint8Array.from(bytes).buffer });

/**
 * The time step that a code is of (RFC 6238 with HMAC-SHA-1), if it is good at this moment and newer than the last one
 * taken.
 * @param nowMs Unix milliseconds
 * @param lastStep step of the last code taken: neither it nor an older one is taken again
 * @returns null when the code is not good
 */
export function stepOf(secret: Buffer, code: string, nowMs: number, lastStep: number): number | null {
  // otpauth compares bytes of equal length and throws on others, which six characters beyond ASCII would be.
  if (!/^\d{6}$/.test(code)) return null;
  const period = { period: STEP_SECONDS, timestamp: nowMs };
  const delta = TOTP.validate({
    ...period,
    token: code,
    secret: secretOf(secret),
    algorithm: 'SHA1',
    digits: DIGITS,
    window: STEPS_AROUND,
  });
  if (delta === null) return null;
  const step = TOTP.counter(period) + delta;
  return step > lastStep ? step : null;
}

/** RFC 4648 section 6, without padding. */
export const base32 = (bytes: Buffer): string => secretOf(bytes).base32;

/** The address that authenticator apps read from a QR code; what they take for granted is left out. */
export function otpauthUri(secret: Buffer, issuer: string, account: string): string {
  const label = `${encodeURIComponent(issuer)}:${encodeURIComponent(account)}`;
  return `otpauth://totp/${label}?secret=${base32(secret)}&issuer=${encodeURIComponent(issuer)}`;
}
