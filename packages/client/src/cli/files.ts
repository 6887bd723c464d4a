import { createPublicKey, type JsonWebKey, type KeyObject } from 'node:crypto';
import { open, readFile } from 'node:fs/promises';
import { CommandError } from './exit.js';

/** For an option that can be repeated. */
export const gather = (value: string, before: string[]): string[] => [...before, value];

export const unreadable = (file: string) => (error: NodeJS.ErrnoException) => {
  throw new CommandError('usage', `cannot read ${file}: ${error.code}`);
};
export const opened = (file: string) => open(file).catch(unreadable(file));

/** @throws CommandError when the file is missing or invalid */
export async function publicKeyIn(file: string): Promise<KeyObject> {
  const pem = await readFile(file, 'utf8').catch(unreadable(file));
  try {
    const key = createPublicKey(pem);
    if (key.asymmetricKeyType === 'ed25519') return key;
  } catch {
    // reported below, as for a key of another kind
  }
  throw new CommandError('usage', `${file} contains no Ed25519 public key in PEM`);
}

/** Timeout for fetching a set of keys, in milliseconds. */
const KEYS_TIMEOUT_MS = 10_000;

/**
 * The Ed25519 keys of a JWK Set (RFC 7517); others are ignored.
 * @param place file, or http or https URL
 * @throws CommandError when it is missing, or contains none
 */
export async function publicKeysIn(place: string): Promise<KeyObject[]> {
  const text = /^https?:\/\//.test(place)
    ? await fetchText(place)
    : await readFile(place, 'utf8').catch(unreadable(place));
  try {
    const { keys } = JSON.parse(text) as { keys: JsonWebKey[] };
    const found = keys
      .filter(({ kty, crv }) => kty === 'OKP' && crv === 'Ed25519')
      .map((key) => createPublicKey({ key, format: 'jwk' }));
    if (found.length > 0) return found;
  } catch {
    // reported below, as for a set without such keys
  }
  throw new CommandError('usage', `${place} contains no Ed25519 public keys (JWK Set)`);
}

async function fetchText(address: string): Promise<string> {
  const response = await fetch(address, { signal: AbortSignal.timeout(KEYS_TIMEOUT_MS) }).catch((error: Error) => {
    throw new CommandError('unavailable', `cannot read ${address}: ${error.message}`);
  });
  if (!response.ok) throw new CommandError('unavailable', `cannot read ${address}: it returned ${response.status}`);
  return response.text();
}
