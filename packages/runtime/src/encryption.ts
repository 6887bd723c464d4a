import {
  createCipheriv,
  createDecipheriv,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  hash,
  hkdfSync,
  type KeyObject,
} from 'node:crypto';

/** The public half: it can encrypt, not decrypt. */
export interface EncryptionKey {
  /** Identifies the key without revealing it. */
  readonly id: string;
  /** The X25519 public key in base64url, as in settings. */
  readonly text: string;
  readonly publicKey: KeyObject;
}

export interface DecryptionKey extends EncryptionKey {
  readonly privateKey: KeyObject;
}

const VERSION = 1;
const PUBLIC_BYTES = 32;
const TAG_BYTES = 16;
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
/** Precedes the 32 bytes of an X25519 private key in PKCS #8 (RFC 8410). */
const PKCS8_X25519 = Buffer.from('302e020100300506032b656e04220420', 'hex');

/** The key pair derived from a secret of at least 32 characters; deterministic. */
export function decryptionKey(secret: string): DecryptionKey {
  const seed = Buffer.from(hkdfSync('sha256', secret, '', 'latchkey x25519 v1', PUBLIC_BYTES));
  const privateKey = createPrivateKey({ key: Buffer.concat([PKCS8_X25519, seed]), format: 'der', type: 'pkcs8' });
  return { ...named(createPublicKey(privateKey)), privateKey };
}

/** Parses a public key. @throws when `text` is none */
export function encryptionKey(text: string): EncryptionKey {
  const key = named(createPublicKey({ key: { kty: 'OKP', crv: 'X25519', x: text }, format: 'jwk' }));
  if (key.text !== text) throw new Error('not an X25519 public key in base64url');
  // OpenSSL rejects low-order keys here, with which every agreement has the same result.
  diffieHellman({ privateKey: generateKeyPairSync('x25519').privateKey, publicKey: key.publicKey });
  return key;
}

function named(publicKey: KeyObject): EncryptionKey {
  const text = publicKey.export({ format: 'jwk' }).x ?? '';
  return { id: hash('sha256', `latchkey x25519 id\n${text}`, 'base64url').slice(0, 22), text, publicKey };
}

/**
 * Encrypts to the owner of a key, like a sealed box: an ephemeral key pair, X25519, HKDF-SHA-256, AES-256-GCM. The
 * sender cannot decrypt it afterwards.
 * @param context associated data; decrypting requires the same. Not secret, not in the result
 */
export function encryptFor(key: EncryptionKey, message: string, context: string): Buffer {
  const own = generateKeyPairSync('x25519');
  const head = Buffer.concat([Buffer.of(VERSION), rawOf(own.publicKey)]);
  const shared = diffieHellman({ privateKey: own.privateKey, publicKey: key.publicKey });
  const { secret, nonce } = derive(shared, head, key);
  const cipher = createCipheriv('aes-256-gcm', secret, nonce);
  cipher.setAAD(Buffer.from(context));
  return Buffer.concat([head, cipher.update(message, 'utf8'), cipher.final(), cipher.getAuthTag()]);
}

/** @returns the message; null when the key or context is another, or the message was changed */
export function decryptWith(key: DecryptionKey, encrypted: Uint8Array, context: string): string | null {
  const bytes = Buffer.from(encrypted);
  const headBytes = 1 + PUBLIC_BYTES;
  if (bytes.length < headBytes + TAG_BYTES || bytes[0] !== VERSION) return null;
  const head = bytes.subarray(0, headBytes);
  try {
    const jwk = { kty: 'OKP', crv: 'X25519', x: head.subarray(1).toString('base64url') };
    const publicKey = createPublicKey({ key: jwk, format: 'jwk' });
    const { secret, nonce } = derive(diffieHellman({ privateKey: key.privateKey, publicKey }), head, key);
    const decipher = createDecipheriv('aes-256-gcm', secret, nonce, { authTagLength: TAG_BYTES });
    decipher.setAAD(Buffer.from(context));
    decipher.setAuthTag(bytes.subarray(-TAG_BYTES));
    const message = decipher.update(bytes.subarray(headBytes, -TAG_BYTES));
    return Buffer.concat([message, decipher.final()]).toString('utf8');
  } catch {
    return null; // wrong key, wrong context and changed messages cannot be distinguished
  }
}

/** Key and nonce of one message; the nonce never repeats, because each key is used for one message. */
function derive(shared: Buffer, head: Buffer, { publicKey }: EncryptionKey): { secret: Buffer; nonce: Buffer } {
  const salt = Buffer.concat([head, rawOf(publicKey)]);
  const bytes = Buffer.from(hkdfSync('sha256', shared, salt, 'latchkey encrypted v1', KEY_BYTES + NONCE_BYTES));
  return { secret: bytes.subarray(0, KEY_BYTES), nonce: bytes.subarray(KEY_BYTES) };
}

const rawOf = (publicKey: KeyObject): Buffer => Buffer.from(publicKey.export({ format: 'jwk' }).x ?? '', 'base64url');
