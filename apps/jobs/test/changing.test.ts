import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type Metadata, Server, ServerCredentials, type ServiceDefinition, status } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { INTERNAL_PROTO_FILE } from '@latchkey/contracts';
import { createLogger, firstParty, LiveSettings, PROTO_OPTIONS } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { Redis } from 'ioredis';
import { type JobsConfig, jobsConfig, live, settings } from '../src/config.js';
import { type RunningJobs, startJobs } from '../src/start.js';
import { World } from './world.js';

const role = `changing_${randomBytes(6).toString('hex')}`;
/** What the ops port says. */
interface Readiness {
  readonly status: string;
  readonly checks: Record<string, string>;
  readonly warnings: Record<string, string>;
}

const BUSY = { timeoutMs: 60_000 };
const secret = () => randomBytes(24).toString('base64url');

let world: World;
let dir: string;
let admin: Redis;
let jobs: RunningJobs;
let accepted = secret();
let calls = 0;
let logs = '';
const rpc = new Server();
const write = (name: string, text: string) => writeFileSync(path.join(dir, name), text);

function as(address: string, username: string, password: string): string {
  const url = new URL(address);
  [url.username, url.password] = [username, password];
  return url.href;
}
const database = (password: string) => {
  const url = new URL(as(world.database.url, role, password));
  url.searchParams.set('options', '-c role=latchkey_jobs');
  return url.href;
};

beforeAll(async () => {
  world = await World.start();
  dir = mkdtempSync(path.join(tmpdir(), 'latchkey-changing-'));
  await world.database.query(`CREATE ROLE ${role} LOGIN PASSWORD 'first' IN ROLE latchkey_jobs`);
  admin = new Redis(world.redis.url);
  await admin.call('ACL', 'SETUSER', 'jobs', 'on', '>first', '~*', '&*', '+@all');
  const service = loadSync(INTERNAL_PROTO_FILE, PROTO_OPTIONS)['latchkey.internal.v1.Maintenance'] as ServiceDefinition;
  const handle = ({ metadata }: { metadata: Metadata }, done: (error: object | null, response?: object) => void) => {
    if (metadata.get('authorization')[0] !== firstParty(accepted)) return done({ code: status.UNAUTHENTICATED });
    calls++;
    done(null, {});
  };
  rpc.addService(service, Object.fromEntries(Object.keys(service).map((name) => [name, handle])));
  const port = await new Promise<number>((resolve, reject) => {
    rpc.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  const files: Record<string, string> = {
    DATABASE_URL: database('first'),
    REDIS_URL: as(world.redis.url, 'jobs', 'first'),
    JOBS_RPC_SECRET: accepted,
  };
  const env: NodeJS.ProcessEnv = world.environment({ RPC_ADDRESS: `127.0.0.1:${port}` });
  for (const [name, text] of Object.entries(files)) {
    write(name, text);
    delete env[name];
    env[`${name}_FILE`] = path.join(dir, name);
  }
  const logger = createLogger('jobs', 'info', {
    write: (line: string) => {
      logs += line;
    },
  });
  const load = (from: NodeJS.ProcessEnv) => jobsConfig(from);
  const given = new LiveSettings<JobsConfig>({ env, settings, load, live, logger });
  jobs = await startJobs(given.config, logger, given);
});
afterAll(async () => {
  await jobs.stop();
  rpc.forceShutdown();
  admin.disconnect();
  await world.database.query(`DROP ROLE ${role}`);
  await world[Symbol.asyncDispose]();
  rmSync(dir, { recursive: true, force: true });
});

const ready = async () => (await (await fetch(`http://127.0.0.1:${jobs.opsPort}/readyz`)).json()) as Readiness;
const reload = async () => (await fetch(`http://127.0.0.1:${jobs.opsPort}/reload`, { method: 'POST' })).status;
const runs = async () => {
  const before = calls;
  await waitFor(() => calls > before + 2, BUSY);
};

it('says once that the token-service does not accept its credential, and sends the one in the file now', async () => {
  await runs();
  const old = accepted;
  accepted = secret();
  await waitFor(async () => (await ready()).status === 'not ready', BUSY);
  expect((await ready()).checks['token-service']).toMatch(/^the token-service does not accept JOBS_RPC_SECRET: set/);
  write('JOBS_RPC_SECRET', `${accepted},${old}`);
  expect(await reload()).toBe(200);
  await runs();
  await waitFor(async () => (await ready()).status === 'ready', BUSY);
  const lines = logs.split('\n').filter((line) => line.includes('"msg":"the token-service does not accept'));
  expect(lines).toHaveLength(1);
});

it('connects with new passwords of PostgreSQL and Redis, the queues and their workers too', async () => {
  await admin.call('ACL', 'SETUSER', 'jobs', 'resetpass', '>second');
  await world.database.query(`ALTER ROLE ${role} PASSWORD 'second'`);
  await admin.call('CLIENT', 'KILL', 'USER', 'jobs');
  await world.database.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1', [role]);
  await waitFor(async () => /password authentication failed/.test((await ready()).checks['postgres'] ?? ''), BUSY);
  write('DATABASE_URL', database('second'));
  write('REDIS_URL', as(world.redis.url, 'jobs', 'second'));
  expect(await reload()).toBe(200);
  await waitFor(async () => (await ready()).status === 'ready', BUSY);
  await runs();
});
