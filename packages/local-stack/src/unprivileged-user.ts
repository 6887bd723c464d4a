import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

/** An account of this machine. */
export interface SystemUser {
  name: string;
  uid: number;
  gid: number;
}

/**
 * Who PostgreSQL runs as: it refuses root, so root hands it to `postgres`, or where there is none to `nobody`.
 *
 * @returns `null` when this process is not root's and PostgreSQL can run as this process does
 * @throws when root finds neither account
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
    'PostgreSQL refuses to run as root, and this machine has neither a user "postgres" nor "nobody" to run it as; ' +
      'start Latchkey as an ordinary user, or set DATABASE_URL to a server of your own',
  );
}

/** Whether this account can enter a folder, every folder above it included. */
export function canEnter(user: SystemUser, dir: string): boolean {
  const asked = spawnSync('/bin/sh', ['-c', 'cd "$1"', 'sh', dir], {
    uid: user.uid,
    gid: user.gid,
    cwd: '/',
    stdio: 'ignore',
  });
  return asked.status === 0;
}
