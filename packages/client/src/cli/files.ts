import { createPublicKey, type KeyObject } from 'node:crypto';
import { open, readFile } from 'node:fs/promises';
import { CommandError } from './exit.js';

/** For an option that may be given several times. */
export const gather = (value: string, before: string[]): string[] => [...before, value];

export const unreadable = (file: string) => (error: NodeJS.ErrnoException) => {
  throw new CommandError('usage', `cannot read ${file}: ${error.code}`);
};
export const opened = (file: string) => open(file).catch(unreadable(file));

/** @throws CommandError when the file is not there, or holds something else */
export async function publicKeyIn(file: string): Promise<KeyObject> {
  const pem = await readFile(file, 'utf8').catch(unreadable(file));
  try {
    const key = createPublicKey(pem);
    if (key.asymmetricKeyType === 'ed25519') return key;
  } catch {
    // said below, as for a key of another kind
  }
  throw new CommandError('usage', `${file} holds no Ed25519 public key in PEM`);
}
