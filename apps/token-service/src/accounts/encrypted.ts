import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';

const IV_BYTES = 12;
const TAG_BYTES = 16;

/** A key for one purpose, derived from a pepper. */
export const keyOf = (pepper: string, purpose: string): Buffer =>
  Buffer.from(hkdfSync('sha256', pepper, '', `latchkey ${purpose}`, 32));

/**
 * Encrypts bytes with AES-256-GCM under a key derived from the current pepper.
 * @param purpose domain separation: bytes encrypted for one purpose cannot be decrypted for another
 */
export function encrypt(peppers: readonly string[], purpose: string, plain: Buffer): Buffer {
  const iv = randomBytes(IV_BYTES);
  const cipher = createCipheriv('aes-256-gcm', keyOf(peppers[0] ?? '', purpose), iv);
  const encrypted = Buffer.concat([cipher.update(plain), cipher.final()]);
  return Buffer.concat([iv, cipher.getAuthTag(), encrypted]);
}

/** Decrypts with any of the peppers; null when none fits or the bytes were changed. */
export function decrypt(peppers: readonly string[], purpose: string, encrypted: Buffer): Buffer | null {
  if (encrypted.length < IV_BYTES + TAG_BYTES) return null;
  for (const pepper of peppers) {
    const plain = decryptWith(keyOf(pepper, purpose), encrypted);
    if (plain) return plain;
  }
  return null;
}

function decryptWith(key: Buffer, encrypted: Buffer): Buffer | null {
  const decipher = createDecipheriv('aes-256-gcm', key, encrypted.subarray(0, IV_BYTES));
  decipher.setAuthTag(encrypted.subarray(IV_BYTES, IV_BYTES + TAG_BYTES));
  try {
    return Buffer.concat([decipher.update(encrypted.subarray(IV_BYTES + TAG_BYTES)), decipher.final()]);
  } catch {
    return null; // Encrypted under another pepper, or changed.
  }
}
