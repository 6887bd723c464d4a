import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, closeSync, existsSync, mkdirSync, openSync, readFileSync, statSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

/** The servers that every test of this clone shares. */
export interface SharedServers {
  /** PostgreSQL, as its superuser. */
  databaseUrl: string;
  /**
   * Another, for tests whose results depend on the oldest open transaction of the whole server: no test keeps one open
   * there for longer than it needs.
   */
  quietDatabaseUrl: string;
  /** The redis-server program that private servers are started from; `null` where Redis comes as a container. */
  redisProgram: string | null;
  /** They are no longer needed here; they stop a while after their last user has released them. */
  release: () => void;
  /** Like `release`, but when no one else needs them they stop now; fulfilled once they have. */
  close: () => Promise<void>;
}

/** As long as the first start can take: Debian's packages fetched, a database cluster made, on a busy machine. */
const startTimeoutMs = 180_000;

let shared: Promise<SharedServers> | undefined;
let users = 0;

/**
 * The shared servers: those of `LATCHKEY_TEST_DATABASE_URL`, `LATCHKEY_TEST_QUIET_DATABASE_URL` (default: the same) and
 * `LATCHKEY_TEST_REDIS_SERVER` where `npm test` or a person has set them, else two PostgreSQLs for all tests that run in
 * this clone now, started by the first caller.
 */
export async function sharedServers(): Promise<SharedServers> {
  users++;
  shared ??= fromEnvironment() ?? fromKeeper();
  const servers = await shared.catch((error) => {
    users--;
    shared = undefined;
    throw error;
  });
  let released = false;
  const isLast = () => {
    if (released) return false;
    released = true;
    if (--users > 0) return false;
    shared = undefined;
    return true;
  };
  return {
    ...servers,
    release: () => {
      if (isLast()) servers.release();
    },
    close: async () => {
      if (isLast()) await servers.close();
    },
  };
}

function fromEnvironment(): Promise<SharedServers> | null {
  const databaseUrl = process.env['LATCHKEY_TEST_DATABASE_URL'];
  if (!databaseUrl) return null;
  const quietDatabaseUrl = process.env['LATCHKEY_TEST_QUIET_DATABASE_URL'] || databaseUrl;
  const redisProgram = process.env['LATCHKEY_TEST_REDIS_SERVER'] || null;
  return Promise.resolve({
    databaseUrl,
    quietDatabaseUrl,
    redisProgram,
    release: () => undefined,
    close: async () => undefined,
  });
}

async function fromKeeper(): Promise<SharedServers> {
  // From src/ and from dist/ alike: the keeper that was built, and the clone that both lie in.
  const keeper = fileURLToPath(new URL('../dist/keeper.js', import.meta.url));
  const clone = createHash('sha256').update(keeper).digest('hex').slice(0, 12);
  const uid = process.getuid?.() ?? 0;
  // Not in the clone: PostgreSQL's own user can be unable to enter it, and the path of a socket must be short.
  const dir = path.join(tmpdir(), `latchkey-test-${uid}-${clone}`);
  const socket = path.join(dir, 'keeper.sock');
  const log = `${dir}.log`;
  let started: ReturnType<typeof startKeeper> | undefined;
  for (const until = Date.now() + startTimeoutMs; Date.now() < until; await sleep(100)) {
    const servers = await connectTo(socket);
    if (servers) return servers;
    if (started?.failed()) break;
    // A keeper that finds another one exits at once; if that other one is about to exit, the next attempt succeeds.
    if (!started || started.exited()) started = startKeeper(keeper, dir, socket, log, uid);
  }
  const output = existsSync(log) ? readFileSync(log, 'utf8').slice(-4_000) : 'it printed nothing';
  throw new Error(`the PostgreSQL for tests did not start: ${output}`);
}

function startKeeper(keeper: string, dir: string, socket: string, log: string, uid: number) {
  if (!existsSync(keeper)) throw new Error(`${keeper} is missing; run npm run build`);
  mkdirSync(dir, { recursive: true });
  if (process.getuid && statSync(dir).uid !== uid) throw new Error(`${dir} belongs to another user; remove it`);
  chmodSync(dir, 0o711);
  const output = openSync(log, 'w', 0o600);
  const child = spawn(process.execPath, [keeper, dir, socket], { detached: true, stdio: ['ignore', output, output] });
  closeSync(output);
  child.unref();
  return { exited: () => child.exitCode !== null, failed: () => (child.exitCode ?? 0) !== 0 };
}

/** Returns `null` when no keeper runs. The servers run as long as the connection is open. */
function connectTo(socket: string): Promise<SharedServers | null> {
  return new Promise((resolve) => {
    const connection = createConnection(socket);
    let received = '';
    connection.setEncoding('utf8').on('data', (chunk: string) => {
      received += chunk;
      if (!received.endsWith('\n')) return;
      connection.unref();
      const servers = JSON.parse(received) as Pick<SharedServers, 'databaseUrl' | 'quietDatabaseUrl' | 'redisProgram'>;
      const close = () =>
        new Promise<void>((closed) => {
          connection.ref().once('close', () => closed());
          connection.write('leave\n');
        });
      resolve({ ...servers, release: () => connection.destroy(), close });
    });
    for (const event of ['error', 'close']) connection.once(event, () => resolve(null));
  });
}
