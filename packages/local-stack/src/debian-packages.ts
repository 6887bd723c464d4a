import { execFile } from 'node:child_process';
import {
  accessSync,
  chmodSync,
  constants,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

const executeFile = promisify(execFile);
/** The environment of this process, but in English: `firstLine` and `packagesToInstall` read what is printed. */
const execute = (program: string, args: readonly string[], options: { cwd?: string; timeout?: number } = {}) =>
  executeFile(program, args, { ...options, env: { ...process.env, LC_ALL: 'C' } });
const aptTimeoutMs = 120_000;
const checkTimeoutMs = 10_000;

export interface DebianPrograms {
  /** Folder in the cache, of this machine's architecture. */
  name: string;
  packages: readonly string[];
  /** Also fetch what these packages depend on and this machine lacks, as apt resolves it. */
  dependencies?: boolean;
  /** Fetched in addition when the program does not start with the above; those that the release does not have are skipped. */
  more?: readonly string[];
  /** Path inside the packages by program. */
  programs: Readonly<Record<string, string>>;
  /** Called for the first of the programs, to see that it starts. */
  check: readonly string[];
  /** What the program exits with when called so (default 0). */
  checkCode?: number;
  /** What is said when something is fetched. */
  message: string;
  log?: (line: string) => void;
}

export interface UnpackedPrograms {
  /** What to execute by program: a script that starts it with the unpacked libraries. */
  readonly programs: Readonly<Record<string, string>>;
  /** Folder with the unpacked files. */
  readonly root: string;
}

/** A cache shared by all clones of this user: `LATCHKEY_CACHE`, else the user's cache folder, else a temporary one. */
function cacheDir(): string {
  const home = process.env['XDG_CACHE_HOME'] || path.join(homedir(), '.cache');
  for (const dir of [process.env['LATCHKEY_CACHE'], path.join(home, 'latchkey')]) {
    if (!dir) continue;
    try {
      mkdirSync(dir, { recursive: true });
      accessSync(dir, constants.W_OK);
      return dir;
    } catch (error) {
      if (dir === process.env['LATCHKEY_CACHE']) throw error;
    }
  }
  const dir = path.join(tmpdir(), `latchkey-cache-${process.getuid?.() ?? 'user'}`);
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  return dir;
}

/** The program's path when it is on PATH. */
export function onPath(name: string): string | null {
  for (const dir of (process.env['PATH'] ?? '').split(path.delimiter)) {
    const file = path.join(dir, name);
    try {
      accessSync(file, constants.X_OK);
      return file;
    } catch {
      // not in this folder
    }
  }
  return null;
}

/** What a failed command said, in one line. */
export function firstLine(error: unknown): string {
  const { stderr, message } = error as { stderr?: string; message?: string };
  const lines = (stderr || message || String(error)).trim().split('\n');
  return lines.find((line) => /^E:/.test(line)) ?? lines[0] ?? '';
}

/** Whether this machine can fetch Debian's packages. */
export const hasApt = (): boolean => onPath('apt-get') !== null && onPath('dpkg') !== null;

/**
 * Programs from Debian's packages, fetched with apt-get and unpacked without root into the cache, once.
 *
 * @throws Error when they cannot be fetched, or the first program does not start
 */
export async function debianPrograms(wanted: DebianPrograms): Promise<UnpackedPrograms> {
  const target = path.join(cacheDir(), `${wanted.name}-${process.arch}`);
  const names = Object.keys(wanted.programs);
  const unpacked = {
    programs: Object.fromEntries(names.map((name) => [name, path.join(target, name)])),
    root: path.join(target, 'root'),
  };
  const isThere = () => names.every((name) => existsSync(path.join(target, name)));
  if (isThere()) return unpacked;
  wanted.log?.(wanted.message);
  const half = `${target}.${process.pid}`;
  rmSync(half, { recursive: true, force: true });
  mkdirSync(path.join(half, 'packages'), { recursive: true });
  try {
    const apt = await downloadWithApt(half, wanted.packages, wanted.dependencies === true);
    await unpack(half);
    writeStarters(half, wanted.programs);
    const check = () => starts(path.join(half, names[0]!), wanted.check, wanted.checkCode ?? 0);
    try {
      await check();
    } catch (error) {
      if (!wanted.more) throw error;
      await Promise.allSettled(wanted.more.map((name) => apt([name])));
      await unpack(half);
      writeStarters(half, wanted.programs);
      await check();
    }
    for (const leftover of ['packages', 'lists', 'archives'])
      rmSync(path.join(half, leftover), { recursive: true, force: true });
    writeStarters(half, wanted.programs, target);
    renameSync(half, target);
  } catch (error) {
    rmSync(half, { recursive: true, force: true });
    if (!isThere()) throw error; // another start has unpacked the same
  }
  return unpacked;
}

/** @throws Error with what the program printed when it exits otherwise */
async function starts(program: string, args: readonly string[], code: number): Promise<void> {
  try {
    await execute(program, args, { timeout: checkTimeoutMs });
  } catch (error) {
    if ((error as { code?: unknown }).code === code) return;
    throw error;
  }
  if (code !== 0) throw new Error(`${program} exited with 0, not ${code}`);
}

/** Downloads the packages; with separate package lists when this machine has none. */
async function downloadWithApt(
  dir: string,
  packages: readonly string[],
  dependencies: boolean,
): Promise<(names: readonly string[]) => Promise<void>> {
  const cwd = path.join(dir, 'packages');
  const own = ['lists', 'archives'].map((name) => path.join(dir, name));
  const ownLists = ['-o', `Dir::State::lists=${own[0]}`, '-o', `Dir::Cache=${own[1]}`];
  const apt = async (extra: string[], args: readonly string[]) =>
    (await execute('apt-get', ['-q', ...extra, ...args], { cwd, timeout: aptTimeoutMs })).stdout;
  const download = async (extra: string[]) => {
    const simulated = ['-s', '--no-install-recommends', 'install', ...packages];
    const missing = dependencies ? packagesToInstall(await apt(extra, simulated)) : [];
    await apt(extra, ['download', ...new Set([...packages, ...missing])]);
    return async (names: readonly string[]) => void (await apt(extra, ['download', ...names]));
  };
  try {
    return await download([]);
  } catch {
    for (const folder of own) mkdirSync(path.join(folder, 'partial'), { recursive: true });
    await apt([...ownLists, '-o', 'Debug::NoLocking=1'], ['update']);
    return await download(ownLists);
  }
}

/** The packages that `apt-get -s install` would install. */
function packagesToInstall(output: string): string[] {
  return [...output.matchAll(/^Inst (\S+) /gm)].map(([, name]) => name!);
}

async function unpack(dir: string): Promise<void> {
  for (const file of readdirSync(path.join(dir, 'packages')).filter((name) => name.endsWith('.deb'))) {
    await execute('dpkg', ['-x', path.join(dir, 'packages', file), path.join(dir, 'root')]);
  }
}

/**
 * Writes the scripts that start the unpacked programs with the unpacked libraries.
 * @param dir where they are written
 * @param home where everything will be when they are run
 */
function writeStarters(dir: string, programs: Readonly<Record<string, string>>, home = dir): void {
  const libraries = ['usr/lib', 'lib'].flatMap((lib) => {
    const parent = path.join(dir, 'root', lib);
    const folders = existsSync(parent) ? readdirSync(parent).filter((name) => name.includes('-linux-')) : [];
    return folders.map((name) => path.join(home, 'root', lib, name));
  });
  const quote = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;
  for (const [name, inside] of Object.entries(programs)) {
    const file = path.join(dir, name);
    const program = path.join(home, 'root', inside);
    writeFileSync(
      file,
      `#!/bin/sh\nexport LD_LIBRARY_PATH=${quote(libraries.join(':'))}\nexec ${quote(program)} "$@"\n`,
    );
    chmodSync(file, 0o755);
  }
}
