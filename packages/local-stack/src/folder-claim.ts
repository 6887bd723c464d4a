import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { processIdentity, stillRuns } from './process-identity.js';

/** Another process uses the folder. `pid` is its id, or `null` when it has just released the folder. */
export class FolderInUse extends Error {
  override readonly name = 'FolderInUse';
  constructor(
    readonly dir: string,
    readonly pid: number | null,
  ) {
    super(`${dir} is in use by process ${pid ?? 'unknown'}; stop it first, or use another folder`);
  }
}

/** Exclusive use of a folder until `release()` or the end of the process. */
export interface FolderClaim {
  release(): void;
}

/**
 * Claims a folder for this process, creating it if needed. Claims of ended processes, crashed ones too, are ignored.
 *
 * @param dir the folder; the file `owner` in it identifies the process
 * @throws FolderInUse when a running process has claimed it, this one included
 */
export function claimFolder(dir: string): FolderClaim {
  const file = path.join(dir, 'owner');
  const identity = processIdentity(process.pid);
  if (!identity) throw new Error('this process is not in the process table');
  mkdirSync(dir, { recursive: true });
  for (let attempt = 0; attempt < 5; attempt++) {
    try {
      writeFileSync(file, identity, { flag: 'wx', mode: 0o600 });
      return { release: () => rmSync(file, { force: true }) };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    const owner = readOwner(file);
    if (owner && stillRuns(owner)) throw new FolderInUse(dir, Number(owner.split(' ', 1)[0]));
    // Two processes can find the same stale file: each renames it to a unique name, so that the slower one cannot
    // remove the file that the faster one has written since; if it has renamed that, it restores it.
    const aside = `${file}.${process.pid}.${attempt}`;
    try {
      renameSync(file, aside);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') continue;
      throw error;
    }
    const moved = readOwner(aside);
    if (moved && stillRuns(moved)) {
      renameSync(aside, file);
      throw new FolderInUse(dir, Number(moved.split(' ', 1)[0]));
    }
    rmSync(aside, { force: true });
  }
  throw new FolderInUse(dir, null);
}

function readOwner(file: string): string | null {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}
