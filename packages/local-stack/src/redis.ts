import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { claimFolder } from './folder-claim.js';
import { endProcess } from './process-identity.js';
import { findRedis, type RedisSource } from './redis-binary.js';
import * as servers from './server-process.js';

const execute = promisify(execFile);

export interface RedisOptions {
  /** Folder for data, password and configuration; made when missing, gone on with when there. */
  dir: string;
  /** Port on 127.0.0.1; any free one when absent. */
  port?: number;
  /** Whether writes survive the server (append-only file, flushed every second; default true). */
  persistent?: boolean;
  /** The server's program; looked for by `findRedis` when absent. */
  program?: string;
  /** How long the server may take to come up, reading its data included (default 120 000). */
  startTimeoutMs?: number;
  /** Told what a person should know, such as packages being fetched. */
  log?: (line: string) => void;
  /** Handed every line of the server's own log. */
  onLine?: (line: string) => void;
}

/** A running Redis; `url` holds its password. */
export interface Redis extends servers.LocalServer {
  readonly password: string;
}

const endings: [NodeJS.Signals, number][] = [
  ['SIGTERM', 10_000],
  ['SIGKILL', 5_000],
];

/**
 * Starts Redis for this machine alone: 127.0.0.1, a random password, handed over in a file and never as an argument.
 * It ends with this process where the system can do that (Linux); else the next start for this folder ends it.
 *
 * @throws FolderInUse when a running process has the folder, PortTaken when `port` is another's; Error with one
 *   sentence when there is no Redis, or with the server's last words when it does not come up
 */
export async function startRedis(options: RedisOptions): Promise<Redis> {
  const source: RedisSource = options.program
    ? { kind: 'program', path: options.program }
    : await findRedis(options.log);
  const claim = claimFolder(options.dir);
  try {
    const note = path.join(options.dir, 'process');
    const container = `latchkey-redis-${createHash('sha256').update(path.resolve(options.dir)).digest('hex').slice(0, 16)}`;
    await servers.endLeftover(note, endings);
    if (source.kind === 'container') await execute(source.docker, ['rm', '--force', container]);
    const password = passwordOf(options.dir);
    const { child, port } = await launch(source, container, password, options);
    void child.exited.then(() => claim.release());
    const stop = async () => {
      await endProcess(child.identity, endings);
      await child.exited;
      if (source.kind === 'container') await execute(source.docker, ['rm', '--force', container]);
      rmSync(note, { force: true });
    };
    return {
      url: `redis://:${password}@127.0.0.1:${port}`,
      password,
      port,
      pid: child.pid,
      exited: child.exited,
      stop,
      [Symbol.asyncDispose]: stop,
    };
  } catch (error) {
    claim.release();
    throw error;
  }
}

function passwordOf(dir: string): string {
  const file = path.join(dir, 'password');
  if (existsSync(file)) return readFileSync(file, 'utf8').trim();
  const password = randomBytes(24).toString('base64url');
  writeFileSync(file, password, { mode: 0o600 });
  return password;
}

async function launch(
  source: RedisSource,
  container: string,
  password: string,
  options: RedisOptions,
): Promise<{ child: servers.Child; port: number }> {
  const dir = path.resolve(options.dir);
  const data = path.join(dir, 'data');
  mkdirSync(data, { recursive: true, mode: 0o700 });
  const until = Date.now() + (options.startTimeoutMs ?? 120_000);
  for (;;) {
    const port = options.port ?? (await servers.freePort());
    if (options.port !== undefined && !(await servers.canListen(port))) throw new servers.PortTaken('Redis', port);
    const inside = source.kind === 'container';
    const settings = [
      // Docker publishes the container's port on 127.0.0.1 only; within, it has an address of its own.
      inside ? 'bind 0.0.0.0' : 'bind 127.0.0.1',
      `port ${inside ? 6379 : port}`,
      `requirepass ${password}`,
      `dir ${JSON.stringify(inside ? '/latchkey/data' : data)}`,
      'daemonize no',
      'save ""',
      `appendonly ${options.persistent === false ? 'no' : 'yes'}`,
      'appendfsync everysec',
      'maxmemory-policy noeviction',
    ];
    const file = path.join(dir, 'redis.conf');
    writeFileSync(file, `${settings.join('\n')}\n`, { mode: 0o600 });
    const [command, args] =
      source.kind === 'program' ? [source.path, [file]] : [source.docker, containerArgs(container, dir, port)];
    const environment = { PATH: process.env['PATH'], HOME: process.env['HOME'], LC_ALL: 'C' };
    const child = await servers.startChild(command, args, {
      env: environment,
      cwd: dir,
      whenParentDies: 'TERM',
      ...(options.onLine && { onLine: options.onLine }),
    });
    servers.noteProcess(path.join(dir, 'process'), child.identity);
    while (!child.ended() && Date.now() < until) {
      if (await answers(port, password)) return { child, port };
      await sleep(20);
    }
    const words = child.lastWords();
    if (!child.ended()) await endProcess(child.identity, endings);
    const taken = /Address already in use|port is already allocated/i.test(words);
    if (taken && options.port !== undefined) throw new servers.PortTaken('Redis', port);
    if (!taken || Date.now() >= until) throw new Error(`Redis did not come up: ${words}`);
  }
}

function containerArgs(name: string, dir: string, port: number): string[] {
  const user = `${process.getuid?.() ?? 0}:${process.getgid?.() ?? 0}`;
  const place = ['--publish', `127.0.0.1:${port}:6379`, '--volume', `${dir}:/latchkey`, '--user', user];
  // Past the image's own entry point, which hands root's files to a user of its own.
  const program = ['--entrypoint', 'redis-server', '--cap-drop', 'ALL', 'redis:7', '/latchkey/redis.conf'];
  return ['run', '--rm', '--name', name, ...place, ...program];
}

/** Whether the server takes the password and answers; it does not while it is still reading its data. */
function answers(port: number, password: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ host: '127.0.0.1', port, timeout: 1_000 });
    let heard = '';
    const finish = (ready: boolean) => {
      socket.destroy();
      resolve(ready);
    };
    socket.once('connect', () => socket.write(`AUTH ${password}\r\nPING\r\n`));
    socket.setEncoding('latin1').on('data', (chunk: string) => {
      heard += chunk;
      if (heard.includes('+PONG')) finish(true);
      else if (heard.includes('-')) finish(false);
    });
    for (const event of ['error', 'timeout', 'close']) socket.once(event, () => finish(false));
  });
}
