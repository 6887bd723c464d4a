import { Secret, TOTP } from 'otpauth';

/** Length of a time step and of a code: the defaults of every authenticator app. */
const STEP_SECONDS = 30;
const DIGITS = 6;
/** Steps before and after the current one that are accepted too, for clock skew (RFC 6238 section 5.2). */
const STEPS_AROUND = 1;

/** From a copy: small Buffers share an ArrayBuffer with other data. */
const secretOf = (bytes: Buffer): Secret => new Secret({ buffer: Uint8Array.from(bytes).buffer });

/**
 * The time step of a code (RFC 6238 with HMAC-SHA-1), if it is valid now and newer than the last one accepted.
 * @param nowMs Unix milliseconds
 * @param lastStep step of the last code accepted: neither it nor an older one is accepted again
 * @returns null when the code is not valid
 */
export function stepOf(secret: Buffer, code: string, nowMs: number, lastStep: number): number | null {
  // otpauth throws on inputs of another byte length, such as six non-ASCII characters.
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

/** The URI that authenticator apps read from a QR code; their defaults are left out. */
export function otpauthUri(secret: Buffer, issuer: string, account: string): string {
  const label = `${encodeURIComponent(issuer)}:${encodeURIComponent(account)}`;
  return `otpauth://totp/${label}?secret=${base32(secret)}&issuer=${encodeURIComponent(issuer)}`;
}
