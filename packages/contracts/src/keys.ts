import {
  createHmac,
  createPrivateKey,
  createPublicKey,
  hash,
  hkdfSync,
  type KeyObject,
  sign,
  verify,
} from 'node:crypto';

/** DER before the 32 bytes of an Ed25519 seed (PKCS #8) and of an Ed25519 public key (SPKI). */
const SEED_HEAD = Buffer.from('302e020100300506032b657004220420', 'hex');
const PUBLIC_HEAD = Buffer.from('302a300506032b6570032100', 'hex');
const PUBLIC_KEY_BYTES = 32;
const KEY_ID_LENGTH = 16;

/** Verifies signatures of invalidations; has no other use. */
export interface FeedKey {
  /** The first 16 characters of the SHA-256 of the public key, base64url. */
  readonly id: string;
  verifies(text: string, signature: string): boolean;
}

/** Signs invalidations. Only the token-service has one. */
export interface FeedSigner {
  readonly id: string;
  /** 32 bytes, as renewals carry it. */
  readonly publicKey: Uint8Array;
  sign(text: string): string;
}

/** The key pair of one secret (one part of `EVENTS_SIGNING_KEY`), derived by HKDF-SHA-256. */
export function feedSigner(secret: Uint8Array): FeedSigner {
  const seed = Buffer.from(hkdfSync('sha256', secret, '', 'latchkey invalidations, Ed25519', 32));
  const privateKey = createPrivateKey({ key: Buffer.concat([SEED_HEAD, seed]), format: 'der', type: 'pkcs8' });
  const spki = createPublicKey(privateKey).export({ format: 'der', type: 'spki' });
  const publicKey = new Uint8Array(spki.subarray(PUBLIC_HEAD.length));
  return {
    id: keyId(publicKey),
    publicKey,
    sign: (text) => sign(null, Buffer.from(text), privateKey).toString('base64url'),
  };
}

/** @returns undefined when the bytes are not an Ed25519 public key */
export function feedKey(publicKey: Uint8Array): FeedKey | undefined {
  if (publicKey.length !== PUBLIC_KEY_BYTES) return undefined;
  let key: KeyObject;
  try {
    key = createPublicKey({ key: Buffer.concat([PUBLIC_HEAD, publicKey]), format: 'der', type: 'spki' });
  } catch {
    return undefined; // no signature is valid under such a key
  }
  return {
    id: keyId(publicKey),
    verifies: (text, signature) => verify(null, Buffer.from(text), key, Buffer.from(signature, 'base64url')),
  };
}

const keyId = (publicKey: Uint8Array): string => hash('sha256', publicKey, 'base64url').slice(0, KEY_ID_LENGTH);

/**
 * The key by which one verifier authenticates acknowledgements.
 * @param eventsSecret `EVENTS_SECRET`, which only the token-service has
 * @param salt random bytes of the lease's row: the key becomes invalid with the row, and a new row has a new key
 */
export function acknowledgementKey(
  eventsSecret: Uint8Array,
  { verifierId, caller, salt }: { verifierId: string; caller: string; salt: Uint8Array },
): Buffer {
  return derived(
    eventsSecret,
    `acknowledgements\n${verifierId}\n${caller}\n${Buffer.from(salt).toString('base64url')}`,
  );
}

/** The key by which one verifier authenticates usage batches. Token-service and jobs share `USAGE_SECRET`. */
export function usageKey(
  usageSecret: Uint8Array,
  { verifierId, caller }: { verifierId: string; caller: string },
): Buffer {
  return derived(usageSecret, `usage\n${verifierId}\n${caller}`);
}

/**
 * Proves that this caller has looked the token up, so that jobs counts the usage that it reports for the token.
 * First-party services need none.
 */
export function usageTicket(usageSecret: Uint8Array, { caller, tokenId }: { caller: string; tokenId: string }): Buffer {
  return derived(usageSecret, `ticket\n${caller}\n${tokenId}`).subarray(0, TICKET_BYTES);
}
const TICKET_BYTES = 16;

const derived = (secret: Uint8Array, purpose: string): Buffer => createHmac('sha256', secret).update(purpose).digest();
