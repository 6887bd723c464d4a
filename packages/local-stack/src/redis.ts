import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { claimFolder } from './folder-claim.js';
import { canListen, freePort } from './free-port.js';
import { endProcess } from './process-identity.js';
import { findRedis, type RedisSource } from './redis-binary.js';
import * as servers from './server-process.js';

const execute = promisify(execFile);

export interface RedisOptions {
  /** Folder for data, password and configuration; created if missing, reused otherwise. */
  dir: string;
  /** Port on 127.0.0.1; any free one by default. */
  port?: number;
  /** Whether data is stored on disk (append-only file, flushed every second; default true). */
  persistent?: boolean;
  /** Further lines of its configuration. */
  settings?: readonly string[];
  /** The server's program; `findRedis` finds one by default. */
  program?: string;
  /** Timeout of the start, loading its data included (default 120 000). */
  startTimeoutMs?: number;
  /** Called with messages for people, such as that packages are fetched. */
  log?: (line: string) => void;
  /** Called with every line of the server's log. */
  onLine?: (line: string) => void;
}

/** A running Redis; `url` contains its password. */
export interface Redis extends servers.LocalServer {
  readonly password: string;
}

const stopSignals: [NodeJS.Signals, number][] = [
  ['SIGTERM', 10_000],
  ['SIGKILL', 5_000],
];

/**
 * Starts Redis for this machine only: 127.0.0.1, a random password, passed in a file and never as an argument. On Linux
 * it ends with this process; elsewhere the next start for this folder ends it.
 *
 * @throws FolderInUse when a running process has the folder, PortTaken when `port` is in use; Error when
 *   there is no Redis, or with the server's last output when it does not start
 */
export async function startRedis(options: RedisOptions): Promise<Redis> {
  const source: RedisSource = options.program
    ? { kind: 'program', path: options.program }
    : await findRedis(options.log);
  const claim = claimFolder(options.dir);
  try {
    const note = path.join(options.dir, 'process');
    const container = `latchkey-redis-${createHash('sha256').update(path.resolve(options.dir)).digest('hex').slice(0, 16)}`;
    await servers.endLeftover(note, stopSignals);
    if (source.kind === 'container') await execute(source.docker, ['rm', '--force', container]);
    const password = passwordOf(options.dir);
    const { child, port } = await launch(source, container, password, options);
    void child.exited.then(() => claim.release());
    const stop = async () => {
      await endProcess(child.identity, stopSignals);
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
    const port = options.port ?? (await freePort());
    if (options.port !== undefined && !(await canListen(port))) throw new servers.PortTaken('Redis', port);
    const inside = source.kind === 'container';
    const settings = [
      // Docker publishes the container's port on 127.0.0.1 only; inside, the container has its own address.
      inside ? 'bind 0.0.0.0' : 'bind 127.0.0.1',
      `port ${inside ? 6379 : port}`,
      `requirepass ${password}`,
      `dir ${JSON.stringify(inside ? '/latchkey/data' : data)}`,
      'daemonize no',
      'save ""',
      `appendonly ${options.persistent === false ? 'no' : 'yes'}`,
      'appendfsync everysec',
      'maxmemory-policy noeviction',
      ...(options.settings ?? []),
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
      if (await isReady(port, password)) return { child, port };
      await sleep(20);
    }
    const output = child.lastOutput();
    if (!child.ended()) await endProcess(child.identity, stopSignals);
    const taken = /Address already in use|port is already allocated/i.test(output);
    if (taken && options.port !== undefined) throw new servers.PortTaken('Redis', port);
    if (!taken || Date.now() >= until) throw new Error(`Redis did not start: ${output}`);
  }
}

function containerArgs(name: string, dir: string, port: number): string[] {
  const user = `${process.getuid?.() ?? 0}:${process.getgid?.() ?? 0}`;
  const place = ['--publish', `127.0.0.1:${port}:6379`, '--volume', `${dir}:/latchkey`, '--user', user];
  // Instead of the image's entry point, which changes the owner of root's files.
  const program = ['--entrypoint', 'redis-server', '--cap-drop', 'ALL', 'redis:7', '/latchkey/redis.conf'];
  return ['run', '--rm', '--name', name, ...place, ...program];
}

/** Whether the server accepts the password and replies; it does not while it is loading its data. */
function isReady(port: number, password: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ host: '127.0.0.1', port, timeout: 1_000 });
    let reply = '';
    const finish = (ready: boolean) => {
      socket.destroy();
      resolve(ready);
    };
    socket.once('connect', () => socket.write(`AUTH ${password}\r\nPING\r\n`));
    socket.setEncoding('latin1').on('data', (chunk: string) => {
      reply += chunk;
      if (reply.includes('+PONG')) finish(true);
      else if (reply.includes('-')) finish(false);
    });
    for (const event of ['error', 'timeout', 'close']) socket.once(event, () => finish(false));
  });
}
