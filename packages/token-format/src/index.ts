import { hash, randomBytes } from 'node:crypto';
import { crc32 } from 'node:zlib';

/** `pat`: personal, acts for a person. `prj`: acts for a project. */
export type TokenKind = 'pat' | 'prj';

/** What a verifier can decide about a string without I/O. */
export type ParsedSecret =
  | { ok: true; prefix: string; kind: TokenKind; start: string }
  | { ok: false; reason: 'malformed' | 'bad_checksum' };

export const ALPHABET = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
export const DEFAULT_PREFIX = 'lk';
/** 30 random base62 characters: 178 bits, drawn without bias. */
export const RANDOM_LENGTH = 30;
export const CHECKSUM_LENGTH = 6;
/** Characters of the random part in `start`, by which people recognise a token. */
export const START_LENGTH = 4;
/** Longest prefix accepted; it bounds the length of a secret. */
export const PREFIX_LENGTH_MAX = 16;
export const SECRET_LENGTH_MAX = PREFIX_LENGTH_MAX + 5 + RANDOM_LENGTH + CHECKSUM_LENGTH;

const PREFIX_PATTERN = /^[a-z][a-z0-9]{0,15}$/;

/** Length of every secret with this prefix. */
export const secretLength = (prefix: string): number => prefix.length + 5 + RANDOM_LENGTH + CHECKSUM_LENGTH;

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
  if (!isPrefix(prefix)) throw new TypeError(`the token prefix must match ${PREFIX_PATTERN.source}`);
  let body = '';
  while (body.length < RANDOM_LENGTH) {
    for (const byte of random(RANDOM_LENGTH + 4)) {
      if (byte < 248 && body.length < RANDOM_LENGTH) body += ALPHABET[byte % 62];
    }
  }
  const head = `${prefix}_${kind}_${body}`;
  return head + checksum(head);
}

/** Value of each base62 digit by its ASCII code; -1 for other characters. */
const DIGITS = new Int8Array(256).fill(-1);
for (let i = 0; i < ALPHABET.length; i++) DIGITS[ALPHABET.charCodeAt(i)] = i;

const encoder = new TextEncoder();
const bytes = new Uint8Array(SECRET_LENGTH_MAX);

/** IEEE CRC-32 of each byte, reflected. */
const CRC = new Int32Array(256);
for (let byte = 0; byte < 256; byte++) {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  CRC[byte] = crc;
}

/** The head of every secret with a prefix, and its CRC, by prefix. */
const heads = new Map<string, { text: string; crc: number }[]>();

function headsOf(prefix: string): { text: string; crc: number }[] {
  let known = heads.get(prefix);
  if (!known) {
    known = ['pat', 'prj'].map((kind) => {
      const text = `${prefix}_${kind}_`;
      return { text, crc: ~crc32(text) };
    });
    heads.set(prefix, known);
  }
  return known;
}

/**
 * Whether a presented string can be a secret: first the shape, then the checksum. Needs no I/O, allocates no string and
 * never throws: verifiers call it for every request.
 */
export function inspect(text: string, prefix: string = DEFAULT_PREFIX): 'ok' | 'malformed' | 'bad_checksum' {
  if (text.length !== secretLength(prefix)) return 'malformed';
  const bodyAt = prefix.length + 5;
  const checksumAt = bodyAt + RANDOM_LENGTH;
  const [pat, prj] = headsOf(prefix) as [{ text: string; crc: number }, { text: string; crc: number }];
  const head = text.startsWith(pat.text) ? pat : prj;
  if (head === prj && !text.startsWith(prj.text)) return 'malformed';
  // Bytes of a copy: reading characters of a string is several times slower in processes that have loaded some libraries.
  if (encoder.encodeInto(text, bytes).written !== text.length) return 'malformed';
  let { crc } = head;
  for (let i = bodyAt; i < checksumAt; i++) {
    const byte = bytes[i]!;
    if (DIGITS[byte]! < 0) return 'malformed';
    crc = CRC[(crc ^ byte) & 255]! ^ (crc >>> 8);
  }
  // Six base62 digits stay below 2^36: exact in a double.
  let claimed = 0;
  for (let i = checksumAt; i < checksumAt + CHECKSUM_LENGTH; i++) {
    const digit = DIGITS[bytes[i]!]!;
    if (digit < 0) return 'malformed';
    claimed = claimed * 62 + digit;
  }
  return claimed === ~crc >>> 0 ? 'ok' : 'bad_checksum';
}

/** Inspects a presented string, and returns its parts. */
export function parse(text: string, prefix: string = DEFAULT_PREFIX): ParsedSecret {
  const reason = inspect(text, prefix);
  if (reason !== 'ok') return { ok: false, reason };
  const kind = text.startsWith('pat', prefix.length + 1) ? 'pat' : 'prj';
  return { ok: true, prefix, kind, start: startOf(text, prefix) };
}

/** Prefix, kind and the first four random characters of a secret. */
export function startOf(secret: string, prefix: string = DEFAULT_PREFIX): string {
  return secret.slice(0, prefix.length + 5 + START_LENGTH);
}

/** SHA-256 of the secret in base64url: identifies a token in verifiers and over RPC. Never stored in PostgreSQL or Redis. */
export function hashSecret(secret: string): string {
  return hash('sha256', secret, 'base64url');
}

/**
 * The same SHA-256 as a string of its 32 bytes, one character each: a smaller key for large memories. `hashOfDigest`
 * converts it to the form of `hashSecret`.
 */
export function digestSecret(secret: string): string {
  return hash('sha256', secret, 'binary');
}

export function hashOfDigest(digest: string): string {
  return Buffer.from(digest, 'latin1').toString('base64url');
}

/**
 * The text with every secret in it cut after its `start`, whatever its prefix: for stored text of callers, such as a
 * User-Agent. Truncate the text only afterwards, or half a secret can remain.
 */
export function hideSecrets(text: string): string {
  if (!text.includes('_pat_') && !text.includes('_prj_')) return text;
  return text.replace(/([a-z][a-z0-9]{0,15}_(?:pat|prj)_[0-9A-Za-z]{4})[0-9A-Za-z]{32}/g, '$1...');
}
