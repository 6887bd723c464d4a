import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, createWriteStream, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { freePorts, waitFor } from '@latchkey/testing';

/** What the launcher writes to `ready.json` once everything responds. */
export interface Ready {
  url: string;
  apiUrl: string;
  opsUrl: string;
  rpcAddress: string;
  authzAddress: string;
  adminEmail: string;
  adminPassword: string;
  databaseUrl: string;
  redisUrl: string;
  pids: Record<string, number | number[] | null>;
}

/** The paths and ports of one run of the stack. */
export interface Place {
  /** Everything of this run; removed at the end. */
  dir: string;
  /** LATCHKEY_HOME. */
  home: string;
  /** LEDGER_DIR. */
  ledger: string;
  /** All that the launcher and its services printed. */
  log: string;
  /** Every command that reached Redis, pub/sub payloads included. */
  redisLog: string;
  /** Every secret that tests were given, one a line. */
  secrets: string;
}

export interface Stack {
  place: Place;
  ready(): Ready;
  /** Ctrl-C: asks the launcher to end and checks that it took everything with it. */
  stop(): Promise<void>;
}

const ROOT = path.resolve(import.meta.dirname, '..', '..');

/**
 * Starts the built stack by the launcher behind `npm start`, in a folder and on ports of its own.
 * @param env more for the launcher's environment, such as LEASE_MS
 */
export async function startStack(env: Record<string, string> = {}): Promise<Stack> {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'latchkey-e2e-'));
  // PostgreSQL can have to run as a user of its own, which must be able to enter.
  chmodSync(dir, 0o755);
  const place: Place = {
    dir,
    home: path.join(dir, 'home'),
    ledger: path.join(dir, 'ledger'),
    log: path.join(dir, 'launcher.log'),
    redisLog: path.join(dir, 'redis.log'),
    secrets: path.join(dir, 'secrets'),
  };
  writeFileSync(place.secrets, '', { mode: 0o600 });
  const [port] = (await freePorts(8)) as [number];
  const log = createWriteStream(place.log);
  const child = spawn(process.execPath, ['tools/start.mjs'], {
    cwd: ROOT,
    env: {
      PATH: process.env['PATH'],
      HOME: process.env['HOME'],
      CI: 'true',
      LATCHKEY_HOME: place.home,
      LEDGER_DIR: place.ledger,
      PORT: `${port}`,
      OPS_PORT: `${port + 1}`,
      API_PORT: `${port + 4}`,
      RPC_PORT: `${port + 5}`,
      AUTHZ_PORT: `${port + 6}`,
      DEMO_PORT: `${port + 7}`,
      ADMIN_EMAIL: 'admin@example.org',
      ADMIN_PASSWORD: randomBytes(15).toString('base64url'),
      LOG_LEVEL: 'trace',
      GATEWAY_PROCESSES: '2',
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  child.stdout.pipe(log, { end: false });
  child.stderr.pipe(log, { end: false });

  const readyFile = path.join(place.home, 'ready.json');
  const ready = () => JSON.parse(readFileSync(readyFile, 'utf8')) as Ready;
  let monitor: Socket | undefined;
  const killWithParent = () => child.kill('SIGTERM');
  process.once('exit', killWithParent);
  const stop = async () => {
    monitor?.destroy();
    const pids = existsSync(readyFile) ? Object.values(ready().pids).flat() : [];
    await stopChild(child);
    process.off('exit', killWithParent);
    log.end();
    await waitFor(() => pids.every((pid) => pid === null || !isAlive(pid)), {
      what: 'every process of the stack being gone',
    });
    if (process.env['LATCHKEY_E2E_KEEP']) process.stdout.write(`kept ${dir}\n`);
    else rmSync(dir, { recursive: true, force: true });
  };

  try {
    await waitFor(
      () => {
        if (child.exitCode !== null || child.signalCode !== null) return true;
        return readFileSync(place.log, 'utf8').includes('\nready http') && existsSync(readyFile);
      },
      { timeoutMs: 240_000, intervalMs: 100, what: 'the launcher being ready' },
    );
    if (child.exitCode !== null || child.signalCode !== null)
      throw new Error(`the launcher ended with ${child.exitCode ?? child.signalCode}`);
    monitor = await record(ready().redisUrl, place.redisLog);
  } catch (cause) {
    const printed = readFileSync(place.log, 'utf8').slice(-6_000);
    await stop();
    throw new Error(`${(cause as Error).message}; it printed:\n${printed}`, { cause });
  }
  return { place, ready, stop };
}

/** Writes every command that reaches Redis to a file, as Redis itself reports it, until the connection ends. */
async function record(redisUrl: string, file: string): Promise<Socket> {
  const { hostname, port, username, password } = new URL(redisUrl);
  const socket = connect(Number(port), hostname);
  await once(socket, 'connect');
  // Fault tests stop Redis; its errors then are expected.
  socket.on('error', () => socket.destroy());
  const out = createWriteStream(file);
  socket.pipe(out);
  const words = [username, password].map(decodeURIComponent).filter(Boolean);
  socket.write(`${words.length > 0 ? `AUTH ${words.join(' ')}\r\n` : ''}MONITOR\r\n`);
  await waitFor(() => readFileSync(file, 'utf8').includes('+OK'), { what: 'Redis telling what reaches it' });
  return socket;
}

async function stopChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGINT');
  const giveUp = setTimeout(() => child.kill('SIGKILL'), 30_000);
  const [code, signal] = await ended;
  clearTimeout(giveUp);
  if (signal === 'SIGKILL') throw new Error('the launcher did not end within 30 s of SIGINT');
  if (code !== 0 && code !== 130) throw new Error(`the launcher ended with ${code ?? signal} on SIGINT`);
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** The stack of this run, for a test file. */
export function placeOfRun(): Place {
  const place = process.env['LATCHKEY_E2E'];
  if (!place) throw new Error('no stack runs: start the suite with npm test');
  return JSON.parse(place) as Place;
}

/** The launcher's `ready.json` now; it changes when a process is restarted. */
export function readyOf(place: Place): Ready {
  return JSON.parse(readFileSync(path.join(place.home, 'ready.json'), 'utf8')) as Ready;
}
