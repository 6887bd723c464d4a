/**
 * Spin and a C compiler, without installing anything: from PATH, else Debian's packages unpacked into a cache folder
 * (no root needed, about 5 MB). Where there is no gcc, the small compiler tcc is unpacked; the searches then take
 * about two and a half times as long.
 */
import { execFile } from 'node:child_process';
import { accessSync, constants, existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

const execute = promisify(execFile);
const aptTimeoutMs = 120_000;

/**
 * @typedef {object} Toolchain
 * @property {string} spin the program
 * @property {string} preprocessor the command that spin preprocesses with
 * @property {string} compiler its name, for the report
 * @property {(source: string, program: string, flags: string[]) => string[]} compile the command line that compiles
 */

/** @param {string} name */
function onPath(name) {
  for (const dir of (process.env['PATH'] ?? '').split(path.delimiter)) {
    const file = path.join(dir, name);
    try {
      accessSync(file, constants.X_OK);
      return file;
    } catch {
      // Not in this folder: look in the next.
    }
  }
  return null;
}

/** @param {unknown} error */
function firstLine(error) {
  const { stderr, message } = /** @type {{stderr?: string, message?: string}} */ (error);
  const lines = (stderr || message || String(error)).trim().split('\n');
  return lines.find((line) => line.startsWith('E:')) ?? lines[0] ?? '';
}

/**
 * Debian packages, unpacked once; returns the folder that stands for `/`.
 * @param {string} name of the folder in the cache
 * @param {string[]} packages
 * @param {(line: string) => void} log
 */
async function unpacked(name, packages, log) {
  const cache =
    process.env['LATCHKEY_CACHE'] ||
    path.join(process.env['XDG_CACHE_HOME'] || path.join(homedir(), '.cache'), 'latchkey');
  const folder = path.join(cache, `${name}-${process.arch}`);
  if (existsSync(folder)) return folder;
  if (!onPath('apt-get') || !onPath('dpkg')) throw new Error('this is no Debian');
  log(`fetching Debian's packages ${packages.join(', ')} (once)`);
  const half = `${folder}.${process.pid}`;
  const debs = path.join(half, 'debs');
  const lists = path.join(half, 'lists');
  const archives = path.join(half, 'archives');
  for (const folder of [debs, path.join(lists, 'partial'), path.join(archives, 'partial')])
    mkdirSync(folder, { recursive: true });
  /** @param {string[]} args */
  const apt = (args) => execute('apt-get', ['-q', ...args], { cwd: debs, timeout: aptTimeoutMs });
  try {
    try {
      await apt(['download', ...packages]);
    } catch {
      // A machine whose package lists are empty: lists of our own.
      const own = ['-o', `Dir::State::lists=${lists}`, '-o', `Dir::Cache=${archives}`];
      await apt([...own, '-o', 'Debug::NoLocking=1', 'update']);
      await apt([...own, 'download', ...packages]);
    }
    for (const deb of readdirSync(debs)) await execute('dpkg', ['-x', path.join(debs, deb), path.join(half, 'root')]);
    mkdirSync(path.dirname(folder), { recursive: true });
    renameSync(path.join(half, 'root'), folder);
  } catch (error) {
    if (!existsSync(folder)) throw error; // Another run unpacked the same meanwhile.
  } finally {
    rmSync(half, { recursive: true, force: true });
  }
  return folder;
}

/** @param {(line: string) => void} log */
async function findSpin(log) {
  const found = onPath('spin');
  if (found) return found;
  try {
    return path.join(await unpacked('spin', ['spin'], log), 'usr/bin/spin');
  } catch (error) {
    throw new Error(`There is no spin here (${firstLine(error)}); install the package spin of your system`);
  }
}

/**
 * tcc from Debian's packages, with the folder where the C library's own packages were unpacked.
 * @param {(line: string) => void} log
 */
async function findTcc(log) {
  const at = await unpacked('tcc', ['tcc', 'libc6-dev', 'linux-libc-dev'], log);
  const triplet = readdirSync(path.join(at, 'usr/lib')).find((name) => name.includes('-linux-gnu')) ?? '';
  const lib = path.join(at, 'usr/lib', triplet);
  const starter = path.join(at, 'cc');
  const include = [path.join(lib, 'tcc/include'), path.join(at, 'usr/include'), path.join(at, 'usr/include', triplet)];
  writeFileSync(
    starter,
    `#!/bin/sh\nexec '${at}/usr/bin/tcc' '-B${lib}/tcc' -nostdinc ${include.map((dir) => `'-I${dir}'`).join(' ')} "$@"\n`,
    { mode: 0o755 },
  );
  const [begin, end] = [
    ['crt1.o', 'crti.o'],
    ['libc_nonshared.a', 'tcc/libtcc1.a', 'crtn.o'],
  ].map((files) => files.map((file) => path.join(lib, file)));
  const libc = `/lib/${triplet}/libc.so.6`;
  return {
    preprocessor: `${starter} -x c -E`,
    compiler: 'tcc',
    /** @type {Toolchain['compile']} */
    compile: (source, program, flags) => [
      starter,
      '-w',
      '-nostdlib',
      ...flags,
      '-o',
      program,
      ...(begin ?? []),
      source,
      libc,
      ...(end ?? []),
    ],
  };
}

/**
 * @param {(line: string) => void} log called when something is fetched
 * @returns {Promise<Toolchain>}
 * @throws with one sentence on what to install
 */
export async function findToolchain(log = () => undefined) {
  const spin = await findSpin(log);
  for (const name of process.env['MODEL_CC'] ? [process.env['MODEL_CC']] : ['gcc', 'clang']) {
    const program = onPath(name);
    if (!program) continue;
    return {
      spin,
      preprocessor: `${program} -E -x c`,
      compiler: name,
      compile: (source, out, flags) => [program, '-w', ...flags, '-o', out, source],
    };
  }
  try {
    return { spin, ...(await findTcc(log)) };
  } catch (error) {
    throw new Error(`There is no C compiler here (${firstLine(error)}); install gcc`);
  }
}
