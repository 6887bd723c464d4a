import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

const execute = promisify(execFile);

export interface Program {
  readonly path: string;
  /** The folders of the libraries that came with it. */
  readonly env: NodeJS.ProcessEnv;
}

/** Debian's packages of each program, with the libraries that few machines have. */
const PACKAGES = {
  nginx: ['nginx'],
  haproxy: ['haproxy', 'liblua5.3-0', 'libopentracing-c-wrapper0', 'libopentracing1'],
} as const;

/**
 * Finds nginx or HAProxy: installed, or Debian's package, fetched once and unpacked without root into a cache.
 * @throws Error when there is neither
 */
export async function findProgram(name: keyof typeof PACKAGES): Promise<Program> {
  const installed = `/usr/sbin/${name}`;
  if (existsSync(installed)) return { path: installed, env: process.env };
  const cache =
    process.env['LATCHKEY_CACHE'] ??
    path.join(process.env['XDG_CACHE_HOME'] || path.join(homedir(), '.cache'), 'latchkey');
  const target = path.join(cache, `${name}-${process.arch}`);
  if (!existsSync(target)) {
    const half = `${target}.${process.pid}`;
    mkdirSync(half, { recursive: true });
    try {
      await execute('apt-get', ['-q', 'download', ...PACKAGES[name]], { cwd: half, timeout: 120_000 });
      for (const file of readdirSync(half))
        await execute('dpkg', ['-x', path.join(half, file), path.join(half, 'root')]);
      renameSync(half, target);
    } catch (error) {
      rmSync(half, { recursive: true, force: true });
      if (!existsSync(target)) throw error; // another run has unpacked the same
    }
  }
  const root = path.join(target, 'root');
  const libraries = ['usr/lib', 'lib'].flatMap((lib) => {
    const parent = path.join(root, lib);
    const folders = existsSync(parent) ? readdirSync(parent).filter((folder) => folder.includes('-linux-')) : [];
    return folders.map((folder) => path.join(parent, folder));
  });
  const program = {
    path: path.join(root, 'usr', 'sbin', name),
    env: { ...process.env, LD_LIBRARY_PATH: libraries.join(':') },
  };
  await execute(program.path, ['-v'], { env: program.env, timeout: 10_000 });
  return program;
}
