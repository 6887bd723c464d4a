import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { IssuedToken, User } from '@latchkey/contracts';
import { type Clock, createLogger, decryptionKey, systemClock } from '@latchkey/runtime';
import { type TestDatabase, type TestRedis, testRedis } from '@latchkey/testing';
import { startTokenService, type TokenService } from '../src/app.js';
import { tokenServiceConfig } from '../src/config.js';
import { asRole, migratedDatabase } from './database.js';

export const ADMIN_EMAIL = 'admin@example.org';
export const ADMIN_PASSWORD = 'the first administrator';
export const GATEWAY_RPC_SECRET = 'gateway-rpc-secret-for-tests-0123456789';
export const JOBS_RPC_SECRET = 'jobs-rpc-secret-for-tests-0123456789abc';
export const GATEWAY_PROOF_SECRET = 'gateway-proof-secret-for-tests-01234567';
/** The key pair of jobs; the token-service has the public half only. */
export const JOBS_KEY = decryptionKey('jobs-sealing-key-for-tests-0123456789abc');
export const EVENTS_SECRET = 'events-secret-for-tests-0123456789abc';
export const EVENTS_SIGNING_KEY = 'events-signing-key-for-tests-0123456789';
export const USAGE_SECRET = 'usage-secret-for-tests-0123456789abcd';
const SCOPES_FILE = path.join(import.meta.dirname, 'scopes.yaml');

export interface ApiResponse<T = Record<string, unknown>> {
  status: number;
  headers: Headers;
  body: T;
  text: string;
}

export interface Send {
  method?: string;
  body?: unknown;
  /** Sent unchanged. */
  raw?: string | Uint8Array<ArrayBuffer>;
  headers?: Record<string, string>;
  query?: Record<string, string>;
}

/** A caller: with a cookie, a token, or no credentials. */
export interface Person {
  call<T = Record<string, unknown>>(target: string, send?: Send): Promise<ApiResponse<T>>;
  user?: User;
  cookie?: string;
}

/** One or more token-services on a database of the test's own. */
export interface World {
  database: TestDatabase;
  redis: TestRedis;
  service: TokenService;
  /** Its settings. */
  env: Readonly<Record<string, string>>;
  logs(): string;
  /** Another replica on the same database. */
  another(env?: Record<string, string>): Promise<TokenService>;
  as(headers?: Record<string, string>, service?: TokenService): Person;
  bearer(secret: string, service?: TokenService): Person;
  signIn(email?: string, password?: string): Promise<Person>;
  /** A new person, signed in. */
  member(name?: string, role?: 'admin' | 'member'): Promise<Person & { user: User }>;
  close(): Promise<void>;
}

/** @param target method and path in one string, as in `POST /v1/tokens`; default of the method: GET */
async function send(base: string, target: string, options: Send, fixed: Record<string, string>): Promise<ApiResponse> {
  const [method, path] = target.includes(' ') ? (target.split(' ') as [string, string]) : ['GET', target];
  const url = new URL(path, base);
  for (const [name, value] of Object.entries(options.query ?? {})) url.searchParams.set(name, value);
  const body = options.raw ?? (options.body === undefined ? undefined : JSON.stringify(options.body));
  const response = await fetch(url, {
    method: options.method ?? method,
    headers: { ...(body !== undefined && { 'content-type': 'application/json' }), ...fixed, ...options.headers },
    ...(body !== undefined && { body }),
    signal: AbortSignal.timeout(30_000),
  });
  const text = await response.text();
  const isJson =
    response.headers.get('content-type')?.includes('json') && !response.headers.get('content-type')?.includes('ndjson');
  return { status: response.status, headers: response.headers, text, body: isJson && text ? JSON.parse(text) : {} };
}

interface WorldOptions {
  env?: Record<string, string>;
  clock?: Clock;
  /** Uses the server on which no test keeps a transaction open for long: for tests of cursors. */
  quiet?: boolean;
}

export async function world(options: WorldOptions = {}): Promise<World> {
  const [database, redis] = await Promise.all([migratedDatabase({ quiet: options.quiet ?? false }), testRedis()]);
  let logs = '';
  const logger = createLogger('token-service', 'debug', {
    write: (line: string) => {
      logs += line;
    },
  });
  const env = {
    DATABASE_URL: asRole(database.url, 'latchkey_service'),
    DATABASE_POOL_SIZE: '10',
    REDIS_URL: redis.url,
    API_PORT: '0',
    OPS_PORT: '0',
    RPC_PORT: '0',
    TOKEN_PEPPERS: 'pepper-for-tests-0123456789abcdef0123',
    GATEWAY_RPC_SECRET,
    JOBS_RPC_SECRET,
    GATEWAY_PROOF_SECRET,
    JOBS_SEALING_PUBLIC_KEY: JOBS_KEY.text,
    EVENTS_SECRET,
    EVENTS_SIGNING_KEY,
    USAGE_SECRET,
    SCOPES_FILE,
    ADMIN_EMAIL,
    ADMIN_PASSWORD,
    // A proof or commit that takes longer counts as lost: enough for a busy machine, and no longer than tests can wait.
    LEASE_MS: '2500',
    ...options.env,
  };
  const services: TokenService[] = [];
  const another = async (more: Record<string, string> = {}) => {
    const started = await startTokenService(
      tokenServiceConfig({ ...env, ...more }),
      logger,
      options.clock ?? systemClock,
    );
    let stopping: Promise<void> | undefined;
    const service = { ...started, stop: () => (stopping ??= started.stop()) };
    services.push(service);
    return service;
  };
  const service = await another();
  const as = (headers: Record<string, string> = {}, at = service): Person => ({
    call: (target, what = {}) => send(at.apiUrl, target, what, headers) as never,
  });
  const signIn = async (email = ADMIN_EMAIL, password = ADMIN_PASSWORD): Promise<Person> => {
    const response = await as().call<{ user: User }>('POST /v1/session', { body: { email, password } });
    if (response.status !== 200) throw new Error(`the sign-in failed: ${response.text} ${logs.slice(-1500)}`);
    const cookie = response.headers.getSetCookie()[0]!.split(';', 1)[0]!;
    return { ...as({ cookie }), user: response.body.user, cookie };
  };
  let admin: Promise<Person> | undefined;
  const member = async (name = `Person ${randomBytes(3).toString('hex')}`, role: 'admin' | 'member' = 'member') => {
    admin ??= signIn();
    const email = `${randomBytes(6).toString('hex')}@example.org`;
    const password = 'correct horse battery staple';
    const made = await (await admin).call<User>('POST /v1/users', { body: { email, name, role, password } });
    if (made.status !== 201) throw new Error(`creating a person failed: ${made.text}`);
    return (await signIn(email, password)) as Person & { user: User };
  };
  return {
    database,
    redis,
    service,
    env,
    logs: () => logs,
    another,
    as,
    bearer: (secret, at) => as({ authorization: `Bearer ${secret}` }, at),
    signIn,
    member,
    close: async () => {
      await Promise.all(services.map((running) => running.stop()));
      await Promise.all([database.close(), redis.close()]);
    },
  };
}

const BUSY_TRIES = 3;
const BUSY_MS = 1_000;

/** Asks again while the service is too busy, as its clients do. */
async function answered<Response extends { status: number }>(ask: () => Promise<Response>): Promise<Response> {
  let response = await ask();
  for (let tries = 1; response.status === 503 && tries < BUSY_TRIES; tries++) {
    await sleep(BUSY_MS);
    response = await ask();
  }
  return response;
}

/** Issues a token and returns it with its secret. */
export async function issue(person: Person, body: Record<string, unknown> = {}): Promise<IssuedToken> {
  const response = await answered(() =>
    person.call<IssuedToken>('POST /v1/tokens', { body: { name: 'a token', ...body } }),
  );
  if (response.status !== 201) throw new Error(`issuing a token failed: ${response.status} ${response.text}`);
  return response.body;
}

/** Creates a project owned by the person, and returns its id. */
export async function project(person: Person, name = 'a project'): Promise<string> {
  const response = await answered(() => person.call<{ id: string }>('POST /v1/projects', { body: { name } }));
  if (response.status !== 201) throw new Error(`creating a project failed: ${response.text}`);
  return response.body.id;
}

/** All rows of all tables as text, to be searched for what must not be stored. */
export async function everythingStored(database: TestDatabase): Promise<string> {
  const tables = await database.query<{ name: string }>(
    `SELECT quote_ident(table_name) AS name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'`,
  );
  const all = await Promise.all(tables.map(({ name }) => database.query(`SELECT t::text AS row FROM ${name} t`)));
  return all
    .flat()
    .map(({ row }) => row)
    .join('\n');
}

export const readText = (file: string): string => readFileSync(file, 'utf8');
