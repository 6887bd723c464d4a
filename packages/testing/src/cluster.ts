import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer, type Server } from 'node:http';
import { type AddressInfo, createConnection, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { freePorts } from '@latchkey/local-stack';
import { testCredentials } from './credentials.js';
import { testDatabase } from './database.js';
import { type FaultyLink, faultyLink } from './faulty-link.js';
import { type TestRedis, testRedis } from './redis.js';
import { type RunningService, spawnService } from './service.js';

const root = path.resolve(import.meta.dirname, '../../..');
/** A cluster is many processes, and starts on busy machines too. */
const READY_TIMEOUT_MS = 120_000;
const ADMIN = { email: 'admin@example.org', password: 'the administrator of tests' };

export interface ClusterOptions {
  /** Default 1. */
  tokenServices?: number;
  /** Default 1. */
  gateways?: number;
  /** Default 10 000. */
  leaseMs?: number;
  /** Whether the token-services reach PostgreSQL through `databaseLinks`, which costs time. Default true. */
  throughLink?: boolean;
  /** Whether the token-services keep a ledger, which they share. Default true. */
  ledger?: boolean;
  /** Whether jobs runs too. Default false. */
  jobs?: boolean;
  /** An empty database that outlives the cluster. Default: one of the cluster's own on the server that tests share. */
  database?: ClusterDatabase;
}

/** The database of a cluster, as its superuser. */
export interface ClusterDatabase {
  readonly url: string;
  query(text: string): Promise<Record<string, unknown>[]>;
}

/** One process of a cluster, at ports that stay the same over restarts. */
export interface Member {
  readonly name: string;
  /** Its HTTP listener: the token-service's API, the gateway's public port. */
  readonly url: string;
  readonly opsUrl: string;
  readonly process: RunningService;
  /** Restarts it, whether or not it has exited, with the environment changed. */
  restart(env?: Record<string, string>): Promise<void>;
}

/** Token-services and gateways as real processes on a database and a Redis of their own. */
export interface Cluster extends AsyncDisposable {
  readonly database: ClusterDatabase;
  /** Between each token-service and PostgreSQL. */
  readonly databaseLinks: readonly FaultyLink[];
  readonly redis: TestRedis;
  readonly tokenServices: readonly Member[];
  readonly gateways: readonly Member[];
  /** Where jobs was asked for. */
  readonly jobs: Member | undefined;
  /** `host:port` of each token-service's gRPC endpoint. */
  readonly rpcAddresses: readonly string[];
  readonly eventsSecret: string;
  readonly eventsSigningKey: string;
  readonly usageSecret: string;
  readonly gatewayRpcSecret: string;
  /** Where its ledger is, if it keeps one, and what authenticates it. */
  readonly ledger: { readonly dir: string; readonly key: string };
  /** The first administrator. */
  readonly admin: { readonly email: string; readonly password: string };
  /** The `Cookie` header of the first administrator's session. */
  readonly cookie: string;
  /** Path on a gateway that every valid token can GET. */
  readonly guardedPath: string;
  /** Calls a token-service's management API as the first administrator. */
  call<T>(method: string, target: string, body?: unknown, options?: CallOptions): Promise<{ status: number; body: T }>;
  close(): Promise<void>;
}

export interface CallOptions {
  headers?: Record<string, string>;
  /** Which token-service; the first by default. */
  at?: Member;
  timeoutMs?: number;
}

/**
 * Starts a cluster from what has been built. Needs the workspaces' `dist`.
 * @throws when a process does not become ready, with the last of what it printed
 */
export async function startCluster(options: ClusterOptions = {}): Promise<Cluster> {
  const closing: (() => unknown)[] = [];
  const close = async () => {
    for (const part of closing.splice(0).reverse()) await part();
  };
  try {
    return await open(options, closing, close);
  } catch (error) {
    await close();
    throw error;
  }
}

async function open(options: ClusterOptions, closing: (() => unknown)[], close: () => Promise<void>): Promise<Cluster> {
  const { tokenServices = 1, gateways = 1, leaseMs = 10_000, throughLink = true, ledger = true } = options;
  const databaseLinks: FaultyLink[] = [];
  const secret = () => randomBytes(24).toString('base64url');
  const [eventsSecret, eventsSigningKey, usageSecret, ledgerKey] = [secret(), secret(), secret(), secret()] as const;
  const credentials = testCredentials();
  const database = options.database ?? (await ownDatabase(closing));
  await migrate(database.url);
  const redis = await testRedis();
  closing.push(() => redis.close());
  const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-cluster-'));
  closing.push(() => rmSync(dir, { recursive: true, force: true }));
  const upstream = createHttpServer((_, res) => res.end('ok'));
  closing.push(() => upstream.close());
  const routes = path.join(dir, 'routes.yaml');
  const ledgerDir = path.join(dir, 'ledger');
  const upstreamUrl = `http://127.0.0.1:${await listen(upstream)}`;
  writeFileSync(
    routes,
    `routes:\n  - name: guarded\n    path: /guarded\n    upstream: ${upstreamUrl}\n    require: {}\n`,
  );
  const shared = { REDIS_URL: redis.url, HOST: '127.0.0.1', LOG_LEVEL: 'warn' };

  const { privateKey } = generateKeyPairSync('ed25519');
  const receiptSigningKey = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  const rpcPorts = await freePorts(tokenServices);
  const services: Member[] = [];
  for (let i = 0; i < tokenServices; i++) {
    const [api, ops] = (await freePorts(2)) as [number, number];
    const link = await faultyLink(database.url);
    closing.push(() => link.close());
    databaseLinks.push(link);
    services.push(
      await member(`token-service-${i + 1}`, 'apps/token-service/dist/main.js', api, ops, closing, {
        ...shared,
        ...credentials.tokenService,
        DATABASE_URL: asService(throughLink ? link.url(database.url) : database.url),
        TOKEN_PEPPERS: 'a pepper of tests of 32 characters or more',
        EVENTS_SECRET: eventsSecret,
        EVENTS_SIGNING_KEY: eventsSigningKey,
        USAGE_SECRET: usageSecret,
        ...(ledger && { LEDGER_DIR: ledgerDir, LEDGER_KEY: ledgerKey }),
        RECEIPT_SIGNING_KEY: receiptSigningKey,
        LEASE_MS: String(leaseMs),
        API_PORT: String(api),
        OPS_PORT: String(ops),
        RPC_PORT: String(rpcPorts[i]),
        ...(i === 0 && { ADMIN_EMAIL: ADMIN.email, ADMIN_PASSWORD: ADMIN.password }),
      }),
    );
  }
  const rpc = await tcpBalancer(rpcPorts);
  closing.push(rpc.close);
  const starting = Array.from({ length: gateways }, async (_, i) => {
    const [port, ops, authz] = (await freePorts(3)) as [number, number, number];
    return member(`gateway-${i + 1}`, 'apps/gateway/dist/main.js', port, ops, closing, {
      ...shared,
      ...credentials.gateway,
      RPC_ADDRESS: `127.0.0.1:${rpc.port}`,
      API_URL: services[0]!.url,
      GATEWAY_CONFIG: routes,
      CONSOLE_DIR: dir,
      // So that a member that is killed or paused is the whole gateway.
      GATEWAY_PROCESSES: '1',
      // Nobody balances between them who would have to notice.
      SHUTDOWN_DELAY_MS: '0',
      PORT: String(port),
      OPS_PORT: String(ops),
      AUTHZ_PORT: String(authz),
    });
  });
  const members = await Promise.all(starting);
  const jobs = options.jobs
    ? await jobsMember(closing, {
        ...shared,
        ...credentials.jobs,
        USAGE_SECRET: usageSecret,
        DATABASE_URL: asRole(database.url, 'latchkey_jobs'),
        RPC_ADDRESS: `127.0.0.1:${rpc.port}`,
      })
    : undefined;

  let cookie = '';
  const call: Cluster['call'] = async (
    method,
    target,
    body,
    { headers = {}, at = services[0]!, timeoutMs = 60_000 } = {},
  ) => {
    const response = await fetch(new URL(target, at.url), {
      method,
      headers: { cookie, ...(body !== undefined && { 'content-type': 'application/json' }), ...headers },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(timeoutMs),
    });
    const text = await response.text();
    const set = response.headers.getSetCookie()[0];
    if (set) cookie = set.split(';', 1)[0]!;
    return { status: response.status, body: text ? JSON.parse(text) : {} };
  };
  const signedIn = await call('POST', '/v1/session', ADMIN);
  if (signedIn.status !== 200) throw new Error(`signing in returned ${signedIn.status}`);
  return {
    database,
    databaseLinks,
    redis,
    tokenServices: services,
    gateways: members,
    jobs,
    rpcAddresses: rpcPorts.map((port) => `127.0.0.1:${port}`),
    eventsSecret,
    eventsSigningKey,
    usageSecret,
    gatewayRpcSecret: credentials.gateway.GATEWAY_RPC_SECRET,
    ledger: { dir: ledgerDir, key: ledgerKey },
    admin: ADMIN,
    cookie,
    guardedPath: '/guarded',
    call,
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function member(
  name: string,
  entry: string,
  port: number,
  opsPort: number,
  closing: (() => unknown)[],
  base: Record<string, string>,
): Promise<Member> {
  const opsUrl = `http://127.0.0.1:${opsPort}`;
  let env = base;
  const start = () =>
    spawnService(path.join(root, entry), env, { readyUrl: `${opsUrl}/readyz`, readyTimeoutMs: READY_TIMEOUT_MS });
  let running = await start();
  closing.push(async () => {
    await running.kill('SIGKILL');
  });
  return {
    name,
    url: `http://127.0.0.1:${port}`,
    opsUrl,
    get process() {
      return running;
    },
    restart: async (changed = {}) => {
      await running.stop();
      env = { ...env, ...changed };
      running = await start();
    },
  };
}

async function jobsMember(closing: (() => unknown)[], env: Record<string, string>): Promise<Member> {
  const [ops] = (await freePorts(1)) as [number];
  return member('jobs', 'apps/jobs/dist/main.js', ops, ops, closing, { ...env, OPS_PORT: String(ops) });
}

async function ownDatabase(closing: (() => unknown)[]): Promise<ClusterDatabase> {
  const database = await testDatabase();
  closing.push(() => database.close());
  return database;
}

async function migrate(url: string): Promise<void> {
  const entry = path.join(root, 'apps/token-service/dist/migrate.js');
  const process = await spawnService(entry, { DATABASE_URL: url, LOG_LEVEL: 'info' }, { readyText: '' });
  const { code } = await process.exited;
  if (code !== 0) throw new Error(`migrating exited with ${code}:\n${process.logs()}`);
}

/** A `DATABASE_URL` for token-services, from one of the superuser's. */
export const asService = (url: string): string => asRole(url, 'latchkey_service');

function asRole(url: string, role: string): string {
  const under = new URL(url);
  under.searchParams.set('options', `-c role=${role}`);
  return under.href;
}

/** A load balancer: a port that passes each connection on to the next of the given ports that accepts it. */
export async function tcpBalancer(ports: readonly number[]): Promise<{ port: number; close: () => void }> {
  const sockets = new Set<Socket>();
  let turn = 0;
  const server = createServer((near) => {
    const first = turn++;
    const join = (attempt: number) => {
      if (attempt === ports.length) {
        near.destroy();
        return;
      }
      const far = createConnection({ host: '127.0.0.1', port: ports[(first + attempt) % ports.length]! });
      sockets.add(far);
      let open = false;
      far.once('connect', () => {
        open = true;
        near.pipe(far).pipe(near);
      });
      far.on('error', () => far.destroy());
      far.once('close', () => {
        sockets.delete(far);
        if (open) near.destroy();
        else join(attempt + 1);
      });
      near.once('close', () => far.destroy());
    };
    sockets.add(near);
    near.setNoDelay(true);
    near.on('error', () => near.destroy());
    near.once('close', () => sockets.delete(near));
    join(0);
  });
  const port = await listen(server);
  const close = () => {
    server.close();
    for (const socket of sockets) socket.destroy();
  };
  return { port, close };
}

function listen(server: Server | ReturnType<typeof createServer>): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port));
  });
}
