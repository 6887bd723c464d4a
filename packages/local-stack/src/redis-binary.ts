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

const execute = promisify(execFile);

/** How Redis is run on this machine. */
export type RedisSource = { kind: 'program'; path: string } | { kind: 'container'; docker: string };

/** Debian's packages with redis-server and the libraries that few machines have. */
const packages = ['redis-server', 'redis-tools', 'libjemalloc2', 'liblzf1'];
/** Libraries that only minimal installations lack; fetched when the server does not start without them. */
const morePackages = [
  'libatomic1',
  'libsystemd0',
  'libssl3',
  'libssl3t64',
  'liblua5.1-0',
  'libgcrypt20',
  'libgpg-error0',
  'libcap2',
  'liblz4-1',
  'libzstd1',
  'liblzma5',
];
const aptTimeoutMs = 120_000;

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

/**
 * Finds a real Redis (or Valkey): on PATH; else Debian's packages, fetched and unpacked without root into a cache;
 * else a container.
 *
 * @param log called when something is fetched
 * @throws Error naming what to install, when there is none
 */
export async function findRedis(log: (line: string) => void = () => undefined): Promise<RedisSource> {
  for (const name of ['redis-server', 'valkey-server']) {
    const found = onPath(name);
    if (found) return { kind: 'program', path: found };
  }
  const failures: string[] = [];
  if (onPath('apt-get') && onPath('dpkg')) {
    try {
      return { kind: 'program', path: await debianRedis(log) };
    } catch (error) {
      failures.push(`fetching Debian's packages failed (${firstLine(error)})`);
    }
  }
  const docker = onPath('docker');
  if (docker) {
    try {
      await execute(docker, ['version', '--format', '{{.Server.Version}}'], { timeout: 10_000 });
      return { kind: 'container', docker };
    } catch (error) {
      failures.push(`Docker is not running (${firstLine(error)})`);
    }
  }
  const tried = failures.length ? ` (${failures.join('; ')})` : '';
  throw new Error(`no Redis found${tried}; install redis-server or valkey-server, or set REDIS_URL to your own server`);
}

function onPath(name: string): string | null {
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

function firstLine(error: unknown): string {
  const { stderr, message } = error as { stderr?: string; message?: string };
  const lines = (stderr || message || String(error)).trim().split('\n');
  return lines.find((line) => /^E:/.test(line)) ?? lines[0] ?? '';
}

/** redis-server from Debian's packages, unpacked once into the cache; returns the path of a program to start. */
async function debianRedis(log: (line: string) => void): Promise<string> {
  const target = path.join(cacheDir(), `redis-${process.arch}`);
  const program = path.join(target, 'redis-server');
  if (existsSync(program)) return program;
  log("redis-server is not installed; fetching Debian's packages (once, about 1.5 MB)");
  const half = `${target}.${process.pid}`;
  rmSync(half, { recursive: true, force: true });
  mkdirSync(path.join(half, 'packages'), { recursive: true });
  try {
    const apt = await downloadWithApt(half);
    await unpack(half);
    const starter = writeStarter(half);
    try {
      await execute(starter, ['--version'], { timeout: 10_000 });
    } catch {
      await Promise.allSettled(morePackages.map((name) => apt([name])));
      await unpack(half);
      await execute(starter, ['--version'], { timeout: 10_000 });
    }
    for (const leftover of ['packages', 'lists', 'archives'])
      rmSync(path.join(half, leftover), { recursive: true, force: true });
    writeStarter(half, target);
    renameSync(half, target);
  } catch (error) {
    rmSync(half, { recursive: true, force: true });
    if (!existsSync(program)) throw error; // another start has unpacked the same
  }
  return program;
}

/** Downloads the packages; with separate package lists when this machine has none. */
async function downloadWithApt(dir: string): Promise<(names: string[]) => Promise<void>> {
  const cwd = path.join(dir, 'packages');
  const own = ['lists', 'archives'].map((name) => path.join(dir, name));
  const ownLists = ['-o', `Dir::State::lists=${own[0]}`, '-o', `Dir::Cache=${own[1]}`];
  const apt = (extra: string[], args: string[]) =>
    execute('apt-get', ['-q', ...extra, ...args], { cwd, timeout: aptTimeoutMs });
  try {
    await apt([], ['download', ...packages]);
    return async (names) => void (await apt([], ['download', ...names]));
  } catch {
    for (const folder of own) mkdirSync(path.join(folder, 'partial'), { recursive: true });
    await apt([...ownLists, '-o', 'Debug::NoLocking=1'], ['update']);
    await apt(ownLists, ['download', ...packages]);
    return async (names) => void (await apt(ownLists, ['download', ...names]));
  }
}

async function unpack(dir: string): Promise<void> {
  for (const file of readdirSync(path.join(dir, 'packages')).filter((name) => name.endsWith('.deb'))) {
    await execute('dpkg', ['-x', path.join(dir, 'packages', file), path.join(dir, 'root')]);
  }
}

/**
 * Writes the script that starts the unpacked server with the unpacked libraries.
 * @param dir where it is written
 * @param home where everything will be when it is run
 */
function writeStarter(dir: string, home = dir): string {
  const file = path.join(dir, 'redis-server');
  const libraries = ['usr/lib', 'lib'].flatMap((lib) => {
    const parent = path.join(dir, 'root', lib);
    const folders = existsSync(parent) ? readdirSync(parent).filter((name) => name.includes('-linux-')) : [];
    return folders.map((name) => path.join(home, 'root', lib, name));
  });
  const server = path.join(home, 'root', 'usr', 'bin', 'redis-server');
  const quote = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;
  writeFileSync(file, `#!/bin/sh\nexport LD_LIBRARY_PATH=${quote(libraries.join(':'))}\nexec ${quote(server)} "$@"\n`);
  chmodSync(file, 0o755);
  return file;
}
