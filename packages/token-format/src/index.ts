import { hash, randomBytes } from 'node:crypto';
import { crc32 } from 'node:zlib';

/** `pat`: personal, acts for a person. `prj`: acts for a project. */
export type TokenKind = 'pat' | 'prj';

/** What a verifier may tell about a string without any I/O. */
export type ParsedSecret =
  | { ok: true; prefix: string; kind: TokenKind; start: string }
  | { ok: false; reason: 'malformed' | 'bad_checksum' };

export const ALPHABET = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
export const DEFAULT_PREFIX = 'lk';
/** 30 random base62 characters: 178 bits, drawn without bias. */
export const RANDOM_LENGTH = 30;
export const CHECKSUM_LENGTH = 6;
/** Characters of the random part that `start` shows, for people to recognise a token. */
export const START_LENGTH = 4;
/** Longest prefix accepted, so that every secret has a known longest length. */
export const PREFIX_LENGTH_MAX = 16;
export const SECRET_LENGTH_MAX = PREFIX_LENGTH_MAX + 5 + RANDOM_LENGTH + CHECKSUM_LENGTH;

const PREFIX_PATTERN = /^[a-z][a-z0-9]{0,15}$/;

/** True for 1 to 16 lower-case letters and digits, beginning with a letter. */
export function isPrefix(prefix: string): boolean {
  return PREFIX_PATTERN.test(prefix);
}

/** IEEE CRC-32 of the ASCII text as a base62 number, most significant digit first, padded with `0` to six digits. */
export function checksum(text: string): string {
  let rest = crc32(text);
  let digits = '';
  for (let i = 0; i < CHECKSUM_LENGTH; i++) {
    digits = ALPHABET[rest % 62] + digits;
    rest = Math.floor(rest / 62);
  }
  return digits;
}

/**
 * A new secret. Random bytes of 248 and above are drawn again, so that every character is equally likely.
 * @param random a source of `n` random bytes; the operating system's by default.
 */
export function mint(
  kind: TokenKind,
  prefix: string = DEFAULT_PREFIX,
  random: (n: number) => Uint8Array = randomBytes,
): string {
  if (!isPrefix(prefix)) throw new TypeError(`token prefix must match ${PREFIX_PATTERN.source}`);
  let body = '';
  while (body.length < RANDOM_LENGTH) {
    for (const byte of random(RANDOM_LENGTH + 4)) {
      if (byte < 248 && body.length < RANDOM_LENGTH) body += ALPHABET[byte % 62];
    }
  }
  const head = `${prefix}_${kind}_${body}`;
  return head + checksum(head);
}

/** Reads a presented string: shape first, then the checksum. Costs no I/O and never throws. */
export function parse(text: string, prefix: string = DEFAULT_PREFIX): ParsedSecret {
  const bodyAt = prefix.length + 5;
  if (text.length !== bodyAt + RANDOM_LENGTH + CHECKSUM_LENGTH) return { ok: false, reason: 'malformed' };
  if (!text.startsWith(prefix) || text[prefix.length] !== '_') return { ok: false, reason: 'malformed' };
  const kind = text.slice(prefix.length + 1, prefix.length + 4);
  if ((kind !== 'pat' && kind !== 'prj') || text[bodyAt - 1] !== '_') return { ok: false, reason: 'malformed' };
  for (let i = bodyAt; i < text.length; i++) {
    const c = text.charCodeAt(i);
    const alphanumeric = (c >= 48 && c <= 57) || (c >= 65 && c <= 90) || (c >= 97 && c <= 122);
    if (!alphanumeric) return { ok: false, reason: 'malformed' };
  }
  const end = text.length - CHECKSUM_LENGTH;
  if (checksum(text.slice(0, end)) !== text.slice(end)) return { ok: false, reason: 'bad_checksum' };
  return { ok: true, prefix, kind, start: text.slice(0, bodyAt + START_LENGTH) };
}

/** Prefix, kind and the first four random characters of a secret. */
export function startOf(secret: string, prefix: string = DEFAULT_PREFIX): string {
  return secret.slice(0, prefix.length + 5 + START_LENGTH);
}

/** SHA-256 of the secret in base64url: how verifiers and the RPC know a token. Never stored in PostgreSQL or Redis. */
export function hashSecret(secret: string): string {
  return hash('sha256', secret, 'base64url');
}
