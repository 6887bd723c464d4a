import {
  Decrypter,
  Encrypter,
  generateHybridIdentity,
  generateX25519Identity,
  identityToRecipient,
} from 'age-encryption';
import { BackupError } from './errors.js';

/** To whom an archive is encrypted: the holders of age identities, or anyone who knows a passphrase. */
export type Lock = { recipients: readonly string[] } | { passphrase: string };
/** What opens an archive. */
export type Unlock = { identities: readonly string[] } | { passphrase: string };

export const PASSPHRASE_CHARACTERS_MIN = 16;

/** Base-2 logarithm of scrypt's cost; about a second and 256 MiB. */
const SCRYPT_WORK_FACTOR = 18;

export interface Encryption {
  encrypter: Encrypter;
  /** Opens what `encrypter` has encrypted, to read it back. */
  unlock: Unlock;
}

/**
 * An archive for recipients gets one more, whose identity exists only in this process: without it, what was written could
 * not be read back.
 * @param workFactor of scrypt; lower in tests only
 * @throws BackupError for a short passphrase, no recipient, or one that is not of age
 */
export async function encryption(lock: Lock, workFactor = SCRYPT_WORK_FACTOR): Promise<Encryption> {
  const encrypter = new Encrypter();
  if ('passphrase' in lock) {
    if (lock.passphrase.length < PASSPHRASE_CHARACTERS_MIN)
      throw new BackupError(
        `the passphrase has fewer than ${PASSPHRASE_CHARACTERS_MIN} characters; choose a longer one, such as six random words`,
      );
    encrypter.setPassphrase(lock.passphrase);
    encrypter.setScryptWorkFactor(workFactor);
    return { encrypter, unlock: lock };
  }
  const quantumSafe = lock.recipients.filter((recipient) => /^age1(?:tag)?pq1/.test(recipient)).length;
  if (lock.recipients.length === 0) throw new BackupError('there is no recipient; give one with --recipient age1…');
  // One ordinary recipient would undo what the post-quantum ones are for.
  if (quantumSafe > 0 && quantumSafe < lock.recipients.length)
    throw new BackupError('some recipients are post-quantum (age1pq1…) and some are not; use one kind');
  const own = await (quantumSafe ? generateHybridIdentity() : generateX25519Identity());
  for (const recipient of [...lock.recipients, await identityToRecipient(own)]) {
    try {
      encrypter.addRecipient(recipient);
    } catch (error) {
      const hint = recipient.startsWith('AGE-SECRET-KEY-') ? 'an identity, which is secret' : (error as Error).message;
      throw new BackupError(
        `--recipient ${recipient.slice(0, 12)}… is no recipient of age (${hint}); it is a line that begins with age1`,
      );
    }
  }
  return { encrypter, unlock: { identities: [own] } };
}

/** @throws BackupError for an identity that is not of age */
export function decrypterOf(unlock: Unlock): Decrypter {
  const decrypter = new Decrypter();
  if ('passphrase' in unlock) decrypter.addPassphrase(unlock.passphrase);
  else
    for (const identity of unlock.identities) {
      try {
        decrypter.addIdentity(identity);
      } catch {
        throw new BackupError(
          'the identity file has a line that is no identity of age; each begins with AGE-SECRET-KEY-, comments with #',
        );
      }
    }
  return decrypter;
}

/** The identities in the text of an identity file, as `age-keygen` writes it. @throws BackupError when there is none */
export function identitiesIn(text: string, file: string): string[] {
  const lines = text.split('\n').map((line) => line.trim());
  const identities = lines.filter((line) => line !== '' && !line.startsWith('#'));
  if (identities.length === 0) throw new BackupError(`${file} contains no identity; each begins with AGE-SECRET-KEY-`);
  return identities;
}

/** A new identity as the text of an identity file, and its recipient. */
export async function newIdentity(): Promise<{ text: string; recipient: string }> {
  const identity = await generateX25519Identity();
  const recipient = await identityToRecipient(identity);
  return { text: `# public key: ${recipient}\n${identity}\n`, recipient };
}
