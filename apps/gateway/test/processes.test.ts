import cluster from 'node:cluster';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, get } from 'node:http';
import { get as getTls } from 'node:https';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TLSSocket } from 'node:tls';
import { jest } from '@jest/globals';
import type { Logger } from '@latchkey/runtime';
import {
  freePorts,
  type RunningService,
  selfSigned,
  spawnService,
  type TestRedis,
  testCredentials,
  testRedis,
  waitFor,
} from '@latchkey/testing';
import { surplusOf } from '../src/processes/balance.js';
import { Processes, type ProcessesOptions, pauseMs } from '../src/processes/processes.js';
import { Authority, type Issued } from './authority.js';
import { TestUpstream } from './stack.js';

const entry = path.join(import.meta.dirname, '../dist/main.js');
/** Processes start slowly on a busy machine. */
const BUSY = { timeoutMs: 120_000 };
jest.setTimeout(240_000);

interface Place extends AsyncDisposable {
  readonly authority: Authority;
  readonly upstream: TestUpstream;
  readonly env: Record<string, string>;
  readonly port: number;
  readonly opsPort: number;
  readonly token: Issued;
  writeRoutes(...paths: string[]): void;
}

let redis: TestRedis;
beforeAll(async () => {
  redis = await testRedis();
});
afterAll(() => redis.close());

/** What a gateway needs around it. */
async function place(): Promise<Place> {
  const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-processes-'));
  const [authority, upstream] = [await Authority.start(), new TestUpstream()];
  await upstream.listen();
  const [port, opsPort, authzPort] = (await freePorts(3)) as [number, number, number];
  const file = path.join(dir, 'gateway.yaml');
  const writeRoutes = (...paths: string[]) => {
    const lines = paths.map((at) => `  - { name: ${at}, path: /${at}/*, upstream: "${upstream.url}", require: {} }\n`);
    writeFileSync(file, `routes:\n${lines.join('')}`);
  };
  writeRoutes('read');
  const env = {
    GATEWAY_PROCESSES: '2',
    PORT: `${port}`,
    OPS_PORT: `${opsPort}`,
    AUTHZ_PORT: `${authzPort}`,
    RPC_ADDRESS: authority.address,
    ...testCredentials().gateway,
    REDIS_URL: redis.url,
    GATEWAY_CONFIG: file,
    CONSOLE_DIR: dir,
    SHUTDOWN_DELAY_MS: '0',
  };
  const close = async () => {
    authority.close();
    await upstream.close();
    rmSync(dir, { recursive: true, force: true });
  };
  return {
    ...{ authority, upstream, env, port, opsPort, writeRoutes },
    token: authority.issue(),
    [Symbol.asyncDispose]: close,
  };
}

const start = (env: Record<string, string>) =>
  spawnService(entry, env, { readyText: 'gateway listening', readyTimeoutMs: 120_000 });

/** A primary in this process. */
async function startHere(where: Place, options: Partial<ProcessesOptions>) {
  cluster.setupPrimary({ exec: entry, args: [], execArgv: [], silent: true });
  const lines: { fields: Record<string, unknown>; message: string }[] = [];
  const log = (fields: Record<string, unknown>, message: string) => void lines.push({ fields, message });
  const pids: number[] = [];
  const primary = {
    pids,
    /** What starting a process throws. */
    cannotStart: undefined as Error | undefined,
    logged: (text: string) => lines.filter(({ message }) => message.includes(text)).map(({ fields }) => fields),
    processes: undefined as unknown as Processes,
    [Symbol.asyncDispose]: () => primary.processes.stop(),
  };
  const fork = () => {
    if (primary.cannotStart) throw primary.cannotStart;
    const worker = cluster.fork({ NODE_OPTIONS: '', ...where.env });
    pids.push(worker.process.pid!);
    return worker;
  };
  const { GATEWAY_CONFIG: routesFile, AUTHZ_PORT: authzPort } = where.env as Record<string, string>;
  const given = {
    version: '0.0.0',
    count: 2,
    routesFile: routesFile!,
    authzPort: Number(authzPort),
    opsHost: '127.0.0.1',
    stopMs: 14_000,
  };
  const logger = { info: log, warn: log, error: log } as unknown as Logger;
  primary.processes = new Processes({ ...given, fork, ...options }, logger);
  await primary.processes.start();
  await waitFor(() => primary.logged('gateway listening').length === 1, BUSY);
  return primary;
}

const workersOf = ({ pid }: RunningService): number[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);
const isAlive = (pid: number) => {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
};

/** A request on a connection of its own, or of an agent's: which process has it is by chance. */
const read = (port: number, at: string, agent?: Agent, secret = '') =>
  new Promise<{ status: number; text: string }>((resolve, reject) => {
    const headers = secret ? { authorization: `Bearer ${secret}` } : {};
    get({ port, host: '127.0.0.1', path: at, headers, agent: agent ?? false }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk) => {
        text += chunk;
      });
      response.once('end', () => resolve({ status: response.statusCode!, text })).once('error', reject);
    }).once('error', reject);
  });
const request = async (port: number, at: string, { secret }: Issued, agent?: Agent) =>
  (await read(port, at, agent, secret)).status;

const logLines = (gateway: RunningService, text: string) =>
  gateway
    .logs()
    .split('\n')
    .filter((line) => line.includes(text));

const metricsOf = async ({ opsPort }: Place) => (await read(opsPort, '/metrics')).text;
const value = (metrics: string, start: string) =>
  Number(
    metrics
      .split('\n')
      .find((line) => line.startsWith(start))
      ?.split(' ')
      .at(-1) ?? Number.NaN,
  );

/** Requests without a pause on `count` kept and on `count` new connections, until told to stop. */
function load(where: Place, count: number) {
  const agent = new Agent({ keepAlive: true, maxSockets: count });
  const outcomes: unknown[] = [];
  let isOn = true;
  const callers = Array.from({ length: 2 * count }, async (_, i) => {
    while (isOn) {
      const outcome = await request(where.port, '/read/x', where.token, i % 2 ? agent : undefined).catch(String);
      outcomes.push(outcome);
    }
  });
  return {
    outcomes,
    async stop() {
      isOn = false;
      await Promise.all(callers);
      agent.destroy();
    },
  };
}

describe('a gateway of two processes', () => {
  let shared: { where: Place; gateway: RunningService };
  beforeAll(async () => {
    const where = await place();
    shared = { where, gateway: await start(where.env) };
  });
  afterAll(async () => {
    await shared.gateway.stop(20_000);
    await shared.where[Symbol.asyncDispose]();
  });
  /** Until both listen. */
  const whole = (where: Place) =>
    waitFor(async () => value(await metricsOf(where), 'latchkey_gateway_processes{') === 2, BUSY);

  it('listens with both at the same ports, free ones where they are 0, and each is a verifier', async () => {
    await using where = await place();
    await using gateway = await start({ ...where.env, PORT: '0', OPS_PORT: '0', AUTHZ_PORT: '0' });
    const lines = logLines(gateway, 'gateway listening');
    expect(lines).toHaveLength(1);
    const { url, opsPort, authzPort, processes } = JSON.parse(lines[0]!);
    expect(processes).toBe(2);
    expect(where.authority.names.map((name) => name.replace(/^.*:/, ''))).toEqual(['0/1', '0/2']);
    const workers = workersOf(gateway);
    expect(workers).toHaveLength(2);
    for (const paused of workers) {
      process.kill(paused, 'SIGSTOP');
      expect(await request(Number(new URL(url).port), '/read/x', where.token)).toBe(200);
      expect((await read(opsPort, '/readyz')).status).toBe(200);
      await new Promise<void>((resolve, reject) => {
        const socket = connect(authzPort, '127.0.0.1').once('error', reject);
        // The settings frame of HTTP/2 comes from the process that accepted the connection.
        socket.once('data', () => resolve(void socket.destroy()));
        socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0');
      });
      process.kill(paused, 'SIGCONT');
    }
    await gateway.stop(20_000);
    expect(await gateway.exited).toEqual({ code: 0, signal: null });
    expect(where.authority.released).toBe(2);
  });

  it('speaks TLS in both, and in those that replace them, and uses a replaced certificate in all', async () => {
    await using where = await place();
    const [first, second] = [selfSigned(), selfSigned()];
    const [cert, key] = ['cert', 'key'].map((name) => path.join(where.env['CONSOLE_DIR']!, `${name}.pem`));
    const write = (pair: typeof first) => {
      writeFileSync(cert!, pair.cert);
      writeFileSync(key!, pair.key);
    };
    write(first);
    await using gateway = await start({ ...where.env, TLS_CERTIFICATE_FILE: cert!, TLS_KEY_FILE: key! });
    /** The certificates of both, each while the other one is stopped. */
    const certificates = async () => {
      const of: string[] = [];
      for (const paused of workersOf(gateway)) {
        process.kill(paused, 'SIGSTOP');
        const options = {
          port: where.port,
          host: '127.0.0.1',
          path: '/healthz',
          rejectUnauthorized: false,
          agent: false,
        };
        await new Promise<void>((resolve, reject) => {
          getTls(options, (response) => {
            of.push((response.socket as TLSSocket).getPeerX509Certificate()!.toString());
            response.resume().once('end', resolve);
          }).once('error', reject);
        });
        process.kill(paused, 'SIGCONT');
      }
      return of;
    };
    expect(await certificates()).toEqual([first.cert, first.cert]);
    write(second);
    await waitFor(async () => (await certificates()).every((one) => one === second.cert), BUSY);
    expect(logLines(gateway, 'TLS certificate reloaded')).toHaveLength(1);
    process.kill(gateway.pid, 'SIGUSR2');
    await waitFor(() => logLines(gateway, 'processes replaced').length === 1, BUSY);
    expect(await certificates()).toEqual([second.cert, second.cert]);
  });

  it('adds up the metrics of both, and leaves out one that does not respond but for its counters', async () => {
    const { where, gateway } = shared;
    await whole(where);
    const requests = 'latchkey_gateway_requests_total{route="read",status="200"';
    const [seconds, deaths] = ['latchkey_gateway_request_seconds_count', 'latchkey_gateway_process_deaths_total'];
    // A process that is slow to respond can be left out, too.
    const whenSilent = (count: number) =>
      waitFor(async () => {
        const text = await metricsOf(where);
        return value(text, 'latchkey_gateway_processes_silent') === count ? text : undefined;
      }, BUSY);
    const before = await whenSilent(0);
    for (let i = 0; i < 30; i++) expect(await request(where.port, '/read/x', where.token)).toBe(200);
    const metrics = await whenSilent(0);
    const served = value(metrics, requests);
    expect(served - (value(before, requests) || 0)).toBe(30);
    expect(value(metrics, seconds) - value(before, seconds)).toBe(30);
    expect(value(metrics, 'latchkey_verifier{what="leaseHeld"')).toBe(1);
    expect(value(metrics, 'latchkey_verifier{what="leaseLeftMs"')).toBeLessThanOrEqual(10_000);
    expect(value(metrics, 'process_start_time_seconds')).toBeGreaterThan(Date.now() / 1000 - 600);
    expect(value(metrics, 'latchkey_gateway_processes{')).toBe(2);
    expect(value(metrics, 'latchkey_build_info{')).toBe(1);
    expect(metrics).not.toContain(' null');
    const [first] = workersOf(gateway);
    process.kill(first!, 'SIGSTOP');
    const without = await whenSilent(1);
    process.kill(first!, 'SIGCONT');
    expect(value(without, requests)).toBe(served);
    // What a process has counted remains when it has ended.
    process.kill(first!, 'SIGKILL');
    await waitFor(async () => value(await metricsOf(where), deaths) === value(before, deaths) + 1, BUSY);
    expect(value(await metricsOf(where), requests)).toBe(served);
  });

  it('uses new routes in both or, when they are invalid, in none, and says so once', async () => {
    const { where, gateway } = shared;
    await whole(where);
    const statuses = async (at: string) => {
      const of: number[] = [];
      for (const paused of workersOf(gateway)) {
        process.kill(paused, 'SIGSTOP');
        of.push(await request(where.port, at, where.token));
        process.kill(paused, 'SIGCONT');
      }
      return of;
    };
    writeFileSync(where.env['GATEWAY_CONFIG']!, 'routes: nonsense');
    process.kill(gateway.pid, 'SIGHUP');
    await waitFor(() => logLines(gateway, 'reloading the routes failed').length > 0);
    expect(await statuses('/read/x')).toEqual([200, 200]);
    // One that starts meanwhile has the routes of the other, too.
    const names = where.authority.names.length;
    process.kill(workersOf(gateway)[0]!, 'SIGKILL');
    await waitFor(() => where.authority.names.length === names + 1 && workersOf(gateway).length === 2, BUSY);
    await whole(where);
    expect(await statuses('/read/x')).toEqual([200, 200]);
    where.writeRoutes('read', 'new');
    process.kill(gateway.pid, 'SIGHUP');
    await waitFor(() => logLines(gateway, 'routes reloaded').length > 0);
    expect(await statuses('/new/x')).toEqual([200, 200]);
    expect(logLines(gateway, 'reloading the routes failed')).toHaveLength(1);
    expect(logLines(gateway, 'routes reloaded')).toHaveLength(1);
  });

  it('replaces its processes on SIGUSR2 and loses no request of kept or new connections', async () => {
    const { where, gateway } = shared;
    await whole(where);
    const before = workersOf(gateway);
    const { released } = where.authority;
    const read200 = 'latchkey_gateway_requests_total{route="read",status="200"';
    const servedBefore = value(await metricsOf(where), read200) || 0;
    const callers = load(where, 4);
    await waitFor(() => callers.outcomes.length > 100);
    process.kill(gateway.pid, 'SIGUSR2');
    await waitFor(() => logLines(gateway, 'processes replaced').length === 1, BUSY);
    const afterwards = callers.outcomes.length;
    await waitFor(() => callers.outcomes.length > afterwards + 100);
    await callers.stop();
    expect(callers.outcomes.filter((outcome) => outcome !== 200)).toEqual([]);
    const after = workersOf(gateway);
    expect(after).toHaveLength(2);
    expect(after.filter((pid) => before.includes(pid))).toEqual([]);
    expect(where.authority.released - released).toBe(2);
    expect(value(await metricsOf(where), read200) - servedBefore).toBe(callers.outcomes.length);
  });

  it('goes on with its processes when a replacement gets no lease, or cannot be started', async () => {
    await using where = await place();
    await using primary = await startHere(where, { replacementMs: 1_000 });
    const before = [...primary.pids];
    where.authority.grantsLeases = false;
    await primary.processes.replace();
    const failed = () => primary.logged('replacing the processes failed');
    expect(failed().map(({ reason }) => reason)).toEqual([expect.stringContaining('held no lease')]);
    where.authority.grantsLeases = true;
    primary.cannotStart = new Error('spawn ENOMEM');
    await primary.processes.replace();
    expect(failed()[1]).toMatchObject({ process: 1, reason: 'the new process cannot be started: spawn ENOMEM' });
    expect(before.filter(isAlive)).toEqual(before);
    await waitFor(async () => (await request(where.port, '/read/x', where.token)) === 200);
    // One that has to be started again is tried again, later and later.
    process.kill(before[0]!, 'SIGKILL');
    await waitFor(() => primary.logged('cannot be started').length === 2, BUSY);
    expect(primary.logged('cannot be started').map(({ waitMs }) => waitMs)).toEqual([0, 1_000]);
    primary.cannotStart = undefined;
    await waitFor(async () => value(await metricsOf(where), 'latchkey_gateway_processes{') === 2, BUSY);
    expect(value(await metricsOf(where), 'latchkey_gateway_process_deaths_total')).toBe(3);
  });

  it('starts a killed process again, and serves meanwhile', async () => {
    const { where, gateway } = shared;
    await whole(where);
    const [killed, other] = workersOf(gateway) as [number, number];
    process.kill(killed, 'SIGKILL');
    await waitFor(() => !isAlive(killed));
    for (let i = 0; i < 20; i++) expect(await request(where.port, '/read/x', where.token)).toBe(200);
    expect((await read(where.opsPort, '/readyz')).status).toBe(200);
    await whole(where);
    expect(workersOf(gateway)).toContain(other);
    const line = logLines(gateway, 'ended unexpectedly').at(-1)!;
    expect(JSON.parse(line)).toMatchObject({ level: 'error', pid: killed, signal: 'SIGKILL' });
  });

  it('hands the files of its routes to the process that replaces a killed one, whatever is on disk meanwhile', async () => {
    await using where = await place();
    const ca = path.join(path.dirname(where.env['GATEWAY_CONFIG']!), 'ca.pem');
    const [valid, wrong] = [selfSigned().cert, 'no certificate'];
    const secure = 'path: /s/*, upstream: "https://127.0.0.1:1", require: {}, tls: { ca: ca.pem }';
    writeFileSync(ca, valid);
    writeFileSync(
      where.env['GATEWAY_CONFIG']!,
      `routes:\n  - { name: read, path: /read/*, upstream: "${where.upstream.url}", require: {} }\n  - { name: s, ${secure} }\n`,
    );
    await using gateway = await start(where.env);
    writeFileSync(ca, wrong);
    process.kill(gateway.pid, 'SIGHUP');
    await waitFor(() => logLines(gateway, 'reloading the routes failed').length === 1, BUSY);
    expect(logLines(gateway, 'reloading the routes failed')[0]).toContain('ca.pem has no certificate in PEM');
    const [killed, other] = workersOf(gateway) as [number, number];
    process.kill(killed, 'SIGKILL');
    await waitFor(() => workersOf(gateway).some((pid) => pid !== killed && pid !== other), BUSY);
    await waitFor(async () => value(await metricsOf(where), 'latchkey_gateway_processes{') === 2, BUSY);
    expect(await request(where.port, '/read/x', where.token)).toBe(200);
    writeFileSync(ca, valid);
    process.kill(gateway.pid, 'SIGHUP');
    await waitFor(() => logLines(gateway, 'routes unchanged').length > 0, BUSY);
  });

  it('frees its ports when its primary is killed, before it has ended what callers have begun', async () => {
    await using where = await place();
    await using gateway = await start(where.env);
    const [reached, released] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    where.upstream.handler = (_req, res) => {
      reached.resolve();
      void released.promise.then(() => res.end('late'));
    };
    const open = request(where.port, '/read/x', where.token);
    await reached.promise;
    await gateway.kill();
    const isFree = (port: number) =>
      read(port, '/').then(
        () => false,
        ({ code }) => code === 'ECONNREFUSED',
      );
    for (const port of [where.port, where.opsPort, Number(where.env['AUTHZ_PORT'])]) await waitFor(() => isFree(port));
    released.resolve();
    expect(await open).toBe(200);
    await waitFor(() => where.authority.released === 2, BUSY);
    await using again = await start(where.env);
    expect(await request(where.port, '/read/x', where.token)).toBe(200);
    await again.stop(20_000);
  });

  it('names an invalid setting, an invalid routes file and a port in use once, and exits with 1', async () => {
    await using where = await place();
    const fails = async (env: Record<string, string>) => {
      const gateway = await spawnService(entry, { ...where.env, ...env });
      expect(await gateway.exited).toEqual({ code: 1, signal: null });
      const lines = gateway.logs().trim().split('\n');
      expect(lines).toHaveLength(1);
      return JSON.parse(lines[0]!).msg as string;
    };
    expect(await fails({ BODY_IDLE_MS: '1' })).toContain('BODY_IDLE_MS: must be at least 100');
    expect(await fails({ GATEWAY_PROCESSES: '0' })).toContain('GATEWAY_PROCESSES: must be at least 1');
    const nowhere = path.join(where.env['CONSOLE_DIR']!, 'nowhere.pem');
    expect(await fails({ TLS_CERTIFICATE_FILE: nowhere, TLS_KEY_FILE: nowhere })).toContain(
      `TLS_CERTIFICATE_FILE: ${nowhere} cannot be read (ENOENT)`,
    );
    expect(await fails({ PORT: `${where.upstream.port}` })).toContain(
      `port ${where.upstream.port} on 127.0.0.1 is in use`,
    );
    writeFileSync(where.env['GATEWAY_CONFIG']!, 'routes: nonsense');
    expect(await fails({})).toContain('the routes file is invalid');
  });
});

describe('the surplus of a process', () => {
  const surplus = (...loads: [connections: number, utilization: number][]) =>
    surplusOf(loads.map(([connections, utilization]) => ({ connections, utilization })));

  it('is half of what it has above the mean, where it is busy and another is not', () => {
    expect(surplus([16, 0.9], [0, 0.1])).toEqual([4, 0]);
    expect(surplus([2, 0.9], [1, 0.1])).toEqual([0, 0]);
    expect(surplus([2, 0.9], [0, 0.1])).toEqual([1, 0]);
    expect(surplus([16, 0.9], [2, 0.8], [0, 0.1])).toEqual([5, 0, 0]);
  });

  it('is none while all are idle or all are busy', () => {
    expect(surplus([16, 0.3], [0, 0])).toEqual([0, 0]);
    expect(surplus([16, 0.9], [4, 0.8])).toEqual([0, 0]);
    expect(surplus([16, 0.9])).toEqual([0]);
    expect(surplus()).toEqual([]);
  });
});

describe('the pause before a process is started again', () => {
  it('is none at first, then doubles up to half a minute', () => {
    expect([1, 2, 3, 4, 5, 6, 7, 8, 9, 100].map(pauseMs)).toEqual([
      0, 0, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000,
    ]);
  });
});
