import { hash, verify } from '@node-rs/argon2';
import { unavailable } from '../http/index.js';

/** OWASP's recommendation for argon2id (the library's default kind): 19 MiB, two passes, one lane. */
const OPTIONS = { memoryCost: 19_456, timeCost: 2, parallelism: 1 };

/** One hash takes a core and 19 MiB for some 30 ms, so the number running and the number waiting are bounded. */
const RUNNING_MAX = 4;
const WAITING_MAX = 100;

let running = 0;
const waiting: (() => void)[] = [];

async function withLimit<T>(work: () => Promise<T>): Promise<T> {
  if (running >= RUNNING_MAX) {
    if (waiting.length >= WAITING_MAX) throw unavailable('Too many people are signing in. Try again.');
    await new Promise<void>((resolve) => waiting.push(resolve));
  } else running++;
  try {
    return await work();
  } finally {
    const next = waiting.shift();
    if (next) next();
    else running--;
  }
}

/** The argon2id hash of a password, as it is stored. */
export const hashPassword = (password: string): Promise<string> => withLimit(() => hash(password, OPTIONS));

let dummyHash: Promise<string> | undefined;

/** Whether the password matches the hash; false for `null`, which takes as long. */
export async function isPassword(hashed: string | null, password: string): Promise<boolean> {
  dummyHash ??= hashPassword('dummy password');
  const against = hashed ?? (await dummyHash);
  const matches = await withLimit(() => verify(against, password));
  return matches && hashed !== null;
}
