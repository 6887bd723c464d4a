import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { processIdentity, stillRuns } from './process-identity.js';

/** Someone else uses the folder now. `pid` is theirs, or `null` when they came and went just now. */
export class FolderInUse extends Error {
  override readonly name = 'FolderInUse';
  constructor(
    readonly dir: string,
    readonly pid: number | null,
  ) {
    super(`${dir} is in use by process ${pid ?? 'unknown'}; stop it first, or use another folder`);
  }
}

/** A folder that is this process's alone until `release()`, or until the process ends in any way. */
export interface FolderClaim {
  release(): void;
}

/**
 * Takes a folder for this process alone, making it when needed. What a process left behind that has ended, a crashed
 * one too, counts for nothing.
 *
 * @param dir the folder; a file `owner` in it names who has it
 * @throws FolderInUse when a running process has it, this one included
 */
export function claimFolder(dir: string): FolderClaim {
  const file = path.join(dir, 'owner');
  const identity = processIdentity(process.pid);
  if (!identity) throw new Error('this process cannot find itself in the process table');
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
    // Two may find the same stale file: each moves it away under a name of its own, so that the slower one cannot
    // remove what the faster one has written since; if it did move that, it puts it back.
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
