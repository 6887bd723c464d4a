import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

/** An account of this machine. */
export interface SystemUser {
  name: string;
  uid: number;
  gid: number;
}

/**
 * The account for PostgreSQL, which refuses to run as root: `postgres`, or else `nobody`.
 *
 * @returns `null` when this process does not run as root
 * @throws Error when this process runs as root and there is neither account
 */
export function unprivilegedUser(): SystemUser | null {
  if (process.getuid?.() !== 0) return null;
  const accounts = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map((line) => line.split(':'));
  for (const wanted of ['postgres', 'nobody']) {
    const found = accounts.find(([name]) => name === wanted);
    if (found) return { name: wanted, uid: Number(found[2]), gid: Number(found[3]) };
  }
  throw new Error(
    'PostgreSQL refuses to run as root, and this machine has neither a user "postgres" nor "nobody"; ' +
      'start Latchkey as an ordinary user, or set DATABASE_URL to your own server',
  );
}

/** Whether this account can enter a folder and all its parents. */
export function canEnter(user: SystemUser, dir: string): boolean {
  const entered = spawnSync('/bin/sh', ['-c', 'cd "$1"', 'sh', dir], {
    uid: user.uid,
    gid: user.gid,
    cwd: '/',
    stdio: 'ignore',
  });
  return entered.status === 0;
}
