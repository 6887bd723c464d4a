import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { claimFolder } from './folder-claim.js';
import { canListen, freePort } from './free-port.js';
import { type PostgresBinaries, postgresBinaries, sharedDir } from './postgres-binaries.js';
import { endProcess } from './process-identity.js';
import * as servers from './server-process.js';
import { canEnter, type SystemUser, unprivilegedUser } from './unprivileged-user.js';

export interface PostgresOptions {
  /** Folder for data and password; created if missing, reused otherwise. */
  dir: string;
  /** Port on 127.0.0.1; any free one by default. */
  port?: number;
  /** For tests only: nothing is flushed to disk, so a crash of the machine (not of the server) loses data. */
  fast?: boolean;
  /** For tests only: existing data in the folder is deleted. */
  fresh?: boolean;
  /** Timeout of the start, recovery after a crash included (default 180 000). */
  startTimeoutMs?: number;
  /** Maximum number of connections (default 200). */
  connectionsMax?: number;
  /** Called with messages for people, such as that data is stored outside `dir`. */
  log?: (line: string) => void;
  /** Called with every line of the server's log. */
  onLine?: (line: string) => void;
}

/** A running PostgreSQL; `url` names the superuser `latchkey` and the database `latchkey`. */
export interface Postgres extends servers.LocalServer {
  /** The actual data folder. */
  readonly dataDir: string;
}

const name = 'latchkey';
/** Fast shutdown, then immediate, then kill: the write-ahead log covers the last two. */
const stopSignals: [NodeJS.Signals, number][] = [
  ['SIGINT', 15_000],
  ['SIGQUIT', 5_000],
  ['SIGKILL', 5_000],
];

/**
 * Starts PostgreSQL for this machine only: 127.0.0.1, a random password (SCRAM), no socket file. The first start creates
 * the data folder and the database. On Linux it ends with this process; elsewhere the next start for this folder ends
 * it. As root it runs under an ordinary account, and stores its data in `/var/lib/latchkey/` when that account cannot
 * access `dir`; `log` is then called.
 *
 * @throws FolderInUse when a running process has the folder, PortTaken when `port` is in use; Error with the
 *   server's last output when it does not start
 */
export async function startPostgres(options: PostgresOptions): Promise<Postgres> {
  const log = options.log ?? (() => undefined);
  const user = unprivilegedUser();
  const binaries = postgresBinaries(user, log);
  const claim = claimFolder(options.dir);
  try {
    const dir = user ? accessibleFolder(options.dir, user, log) : options.dir;
    const dataDir = path.join(dir, 'data');
    await servers.endLeftover(path.join(options.dir, 'process'), stopSignals);
    if (options.fresh) rmSync(dataDir, { recursive: true, force: true });
    // The file `process` names every server of this folder, so PostgreSQL's own pid file is stale.
    rmSync(path.join(dataDir, 'postmaster.pid'), { force: true });
    const password = await prepareData(binaries, dir, dataDir, user, options.fast ?? false);
    const { child, port } = await launch(binaries, dataDir, user, options);
    void child.exited.then(() => claim.release());
    const stop = async () => {
      await endProcess(child.identity, stopSignals);
      await child.exited;
      rmSync(path.join(options.dir, 'process'), { force: true });
    };
    return {
      url: `postgres://${name}:${password}@127.0.0.1:${port}/${name}`,
      port,
      pid: child.pid,
      dataDir,
      exited: child.exited,
      stop,
      [Symbol.asyncDispose]: stop,
    };
  } catch (error) {
    claim.release();
    throw error;
  }
}

/** `dir` itself, or a folder under `/var/lib/latchkey/` that a file in `dir` names, when the account cannot enter `dir`. */
function accessibleFolder(dir: string, user: SystemUser, log: (line: string) => void): string {
  const pointer = path.join(dir, 'kept-in');
  if (existsSync(pointer)) return readFileSync(pointer, 'utf8').trim();
  chmodSync(dir, 0o711);
  if (existsSync(path.join(dir, 'data')) || canEnter(user, dir)) return dir;
  const elsewhere = path.join(sharedDir, `data-${randomBytes(8).toString('hex')}`);
  mkdirSync(elsewhere, { recursive: true });
  chmodSync(sharedDir, 0o755);
  chmodSync(elsewhere, 0o711);
  log(`PostgreSQL runs as user ${user.name}, who cannot access ${dir}; its data is stored in ${elsewhere}`);
  writeFileSync(pointer, elsewhere);
  return elsewhere;
}

/** Creates the data folder and the password if they are missing, and returns the password. */
async function prepareData(
  binaries: PostgresBinaries,
  dir: string,
  dataDir: string,
  user: SystemUser | null,
  fast: boolean,
): Promise<string> {
  const passwordFile = path.join(dir, 'password');
  const fresh = !existsSync(dataDir);
  if (!fresh && existsSync(passwordFile)) return readFileSync(passwordFile, 'utf8').trim();
  // Created under another name and renamed, so that an interrupted first start leaves no partial data behind.
  const target = fresh ? path.join(dir, 'data.new') : dataDir;
  const password = randomBytes(24).toString('base64url');
  if (fresh) {
    rmSync(target, { recursive: true, force: true });
    mkdirSync(target, { mode: 0o700 });
    if (user) chownSync(target, user.uid, user.gid);
    const locale = ['--locale-provider=builtin', '--builtin-locale=C.UTF-8', '--locale=C', '--encoding=UTF8'];
    const args = ['-D', target, '-U', name, '--auth=trust', ...locale, ...(fast ? ['--no-sync'] : [])];
    await runAs(user, binaries.initdb, args);
    // Written before the server first listens: passwords only, this machine only.
    writeFileSync(path.join(target, 'pg_hba.conf'), 'host all all 127.0.0.1/32 scram-sha-256\n');
  }
  const single = ['--single', '-D', target, ...(fast ? ['-c', 'fsync=off'] : []), 'postgres'];
  await runAs(user, binaries.postgres, single, `ALTER ROLE ${name} PASSWORD '${password}'\n`);
  if (fresh) await runAs(user, binaries.postgres, single, `CREATE DATABASE ${name}\n`);
  writeFileSync(passwordFile, password, { mode: 0o600 });
  if (fresh) renameSync(target, dataDir);
  return password;
}

/** Passes on nothing else of this process's environment, which can contain secrets. */
const environment = { PATH: process.env['PATH'], LC_ALL: 'C', TZ: 'UTC' };

function runAs(user: SystemUser | null, program: string, args: string[], input = ''): Promise<void> {
  return new Promise((resolve, reject) => {
    const ids = user ? { uid: user.uid, gid: user.gid } : {};
    const child = spawn(program, args, { ...ids, env: environment, cwd: '/', stdio: ['pipe', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (chunk: string) => {
        output = (output + chunk).slice(-4_000);
      });
    }
    child.once('error', reject);
    child.once('close', (code) => {
      const failed = code !== 0 || /^\S* *(?:ERROR|FATAL|PANIC):/m.test(output);
      if (failed) reject(new Error(`${path.basename(program)} failed with code ${code}: ${output.trim()}`));
      else resolve();
    });
    child.stdin.on('error', () => child.kill()).end(input);
  });
}

async function launch(
  binaries: PostgresBinaries,
  dataDir: string,
  user: SystemUser | null,
  options: PostgresOptions,
): Promise<{ child: servers.Child; port: number }> {
  const until = Date.now() + (options.startTimeoutMs ?? 180_000);
  const unsafe = { fsync: 'off', full_page_writes: 'off', wal_level: 'minimal', max_wal_senders: '0' };
  const settings = {
    listen_addresses: '127.0.0.1',
    unix_socket_directories: '',
    max_connections: String(options.connectionsMax ?? 200),
    shared_buffers: '64MB',
    timezone: 'UTC',
    log_timezone: 'UTC',
    ...(process.platform === 'linux' && { recovery_init_sync_method: 'syncfs' }),
    ...(options.fast ? unsafe : {}),
  };
  for (;;) {
    const port = options.port ?? (await freePort());
    if (options.port !== undefined && !(await canListen(port))) throw new servers.PortTaken('PostgreSQL', port);
    const args = Object.entries({ ...settings, port: String(port) }).flatMap(([key, value]) => [
      '-c',
      `${key}=${value}`,
    ]);
    const child = await servers.startChild(binaries.postgres, ['-D', dataDir, ...args], {
      env: environment,
      cwd: '/',
      whenParentDies: 'INT',
      ...(user && { uid: user.uid, gid: user.gid }),
      ...(options.onLine && { onLine: options.onLine }),
    });
    servers.noteProcess(path.join(options.dir, 'process'), child.identity);
    while (!child.ended() && Date.now() < until) {
      if (isReady(dataDir, child.pid)) return { child, port };
      await sleep(20);
    }
    const output = child.lastOutput();
    if (!child.ended()) await endProcess(child.identity, stopSignals);
    // Children of a killed server take a moment to exit and release the data; and a free port can have been taken in
    // the meantime.
    const transient = /still in use|lock file .* already exists/.test(output);
    const taken = /Address already in use/.test(output);
    if (taken && options.port !== undefined) throw new servers.PortTaken('PostgreSQL', port);
    if ((!transient && !taken) || Date.now() >= until) throw new Error(`PostgreSQL did not start: ${output}`);
    await sleep(200);
  }
}

/** PostgreSQL writes its state to the eighth line of this file; `pg_ctl` uses it too. */
function isReady(dataDir: string, pid: number): boolean {
  try {
    const lines = readFileSync(path.join(dataDir, 'postmaster.pid'), 'utf8').split('\n');
    return lines[0] === String(pid) && ['ready', 'standby'].includes(lines[7]?.trim() ?? '');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}
