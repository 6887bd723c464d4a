/**
 * `npm run upgrade -w @latchkey/e2e -- <folder>`: the version before, built in that folder, is rolled to this one in the order of
 * UPGRADE.md, while tokens are presented at the gateways, issued, and revoked. Each history is evaluated, and after each
 * step the system is asked which guarantee it gives. A gateway that is
 * replaced gets no requests meanwhile, as behind a load balancer.
 */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePorts, spawnService, tcpBalancer, testDatabase, testRedis } from '@latchkey/testing';
import { checkEvaluate, evaluate } from '../faults/history.mjs';
import { Caller, verdictOf } from '../faults/observer.mjs';

const ADMIN = { email: 'admin@example.org', password: 'the administrator of tests' };
const STEP_MS = 4_000;
const DRAINED_MS = 1_000;
const EVERY_MS = 250;

/** @typedef {{ name: string, entry: string, env: Record<string, string>, opsUrl: string, running?: import('@latchkey/testing').RunningService, drained: boolean }} Process */
/** @typedef {{ id: string, secret: string }} Token */

checkEvaluate();
const before = process.argv[2];
if (!before)
  throw new Error('name the folder of the version before, built: npm run upgrade -w @latchkey/e2e -- /folder');
const root = { before: path.resolve(before), now: path.resolve(import.meta.dirname, '../..') };
const secret = () => randomBytes(32).toString('base64url');

/** @type {(() => unknown)[]} */
const closing = [];

async function drill() {
  const database = await testDatabase();
  closing.push(() => database.close());
  const redis = await testRedis();
  closing.push(() => redis.close());
  const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-upgrade-'));
  closing.push(() => rmSync(dir, { recursive: true, force: true }));
  const upstream = createServer((_, res) => res.end('ok'));
  closing.push(() => upstream.close());
  await new Promise((listening) => upstream.listen(0, '127.0.0.1', () => listening(undefined)));
  const { port } = /** @type {import('node:net').AddressInfo} */ (upstream.address());
  const routes = path.join(dir, 'routes.yaml');
  writeFileSync(
    routes,
    `routes:\n  - name: guarded\n    path: /guarded\n    upstream: http://127.0.0.1:${port}\n    require: {}\n`,
  );

  const old = { rpc: secret(), events: secret() };
  const rpcPorts = await freePorts(2);
  const rpc = await tcpBalancer(rpcPorts);
  closing.push(rpc.close);
  const shared = { REDIS_URL: redis.url, HOST: '127.0.0.1', LOG_LEVEL: 'warn' };
  const ofRole = (/** @type {string} */ role) => {
    const url = new URL(database.url);
    url.searchParams.set('options', `-c role=${role}`);
    return url.href;
  };
  const services = await Promise.all(
    rpcPorts.map((rpcPort, i) =>
      described(`token-service-${i + 1}`, 'token-service', 'API_PORT', {
        ...shared,
        DATABASE_URL: ofRole('latchkey_service'),
        TOKEN_PEPPERS: 'a pepper of tests of 32 characters or more',
        RPC_SECRET: old.rpc,
        EVENTS_SECRET: old.events,
        RPC_PORT: String(rpcPort),
        ...(i === 0 && { ADMIN_EMAIL: ADMIN.email, ADMIN_PASSWORD: ADMIN.password }),
      }),
    ),
  );
  const [first] = services;
  if (!first) throw new Error('no token-service');
  const gateways = await Promise.all(
    [1, 2].map((n) =>
      described(`gateway-${n}`, 'gateway', 'PORT', {
        ...shared,
        RPC_SECRET: old.rpc,
        RPC_ADDRESS: `127.0.0.1:${rpc.port}`,
        API_URL: urlOf(first, 'API_PORT'),
        GATEWAY_CONFIG: routes,
        CONSOLE_DIR: dir,
        GATEWAY_PROCESSES: '1',
      }),
    ),
  );
  const jobs = await described('jobs', 'jobs', undefined, {
    ...shared,
    DATABASE_URL: ofRole('latchkey_jobs'),
    RPC_SECRET: old.rpc,
    EVENTS_SECRET: old.events,
    RPC_ADDRESS: `127.0.0.1:${rpc.port}`,
  });

  await migrate(root.before, database.url);
  for (const one of [...services, jobs]) await start(one, root.before);
  await Promise.all(gateways.map((one) => start(one, root.before)));

  const load = await startLoad(services, gateways);
  /** @type {Record<string, string>} */
  const given = { GATEWAY_RPC_SECRET: secret(), JOBS_RPC_SECRET: secret(), GATEWAY_PROOF_SECRET: secret() };
  const usage = secret();
  const signing = secret();
  const lists = Object.fromEntries(Object.entries(given).map(([name, value]) => [name, `${value},${old.rpc}`]));
  const pick = (/** @type {string[]} */ ...names) => Object.fromEntries(names.map((name) => [name, given[name] ?? '']));

  await step('the version before', async () => undefined);
  await step('jobs stopped', () => stop(jobs));
  await step('migrated', () => migrate(root.now, database.url));
  for (const one of services)
    await step(`${one.name} replaced`, async () => {
      await stop(one);
      one.env = { ...without(one.env, 'RPC_SECRET'), ...lists, EVENTS_SIGNING_KEY: signing, USAGE_SECRET: usage };
      await start(one, root.now);
    });
  await step('jobs replaced', async () => {
    jobs.env = { ...without(jobs.env, 'RPC_SECRET', 'EVENTS_SECRET'), ...pick('JOBS_RPC_SECRET'), USAGE_SECRET: usage };
    await start(jobs, root.now);
  });
  for (const one of gateways)
    await step(`${one.name} replaced`, async () => {
      one.drained = true;
      await sleep(DRAINED_MS);
      await stop(one);
      one.env = { ...without(one.env, 'RPC_SECRET'), ...pick('GATEWAY_RPC_SECRET', 'GATEWAY_PROOF_SECRET') };
      await start(one, root.now);
      one.drained = false;
    });
  const events = secret();
  for (const one of services)
    await step(`${one.name} without the old secrets`, async () => {
      await stop(one);
      one.env = { ...one.env, ...given, EVENTS_SECRET: events };
      await start(one, root.now);
    });
  return report(await load.stop());

  /** @param {string} name @param {() => Promise<unknown>} work */
  async function step(name, work) {
    const phase = { name, startMs: performance.now(), system: '' };
    load.phases.push(phase);
    await work();
    await sleep(STEP_MS);
    phase.system = await load.system();
  }
}

/** @param {Process[]} services @param {Process[]} gateways */
async function startLoad(services, gateways) {
  const [first] = services;
  if (!first) throw new Error('no token-service');
  const signedIn = await fetch(`${urlOf(first, 'API_PORT')}/v1/session`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(ADMIN),
  });
  const cookie = signedIn.headers.getSetCookie()[0]?.split(';', 1)[0] ?? '';
  /** @type {Token[]} */
  const tokens = [];
  /** @type {import('../faults/history.mjs').Check[]} */
  const checks = [];
  /** @type {(import('../faults/history.mjs').Revocation & { status: number })[]} */
  const revocations = [];
  /** @type {{ name: string, startMs: number, system: string }[]} */
  const phases = [];
  /** Begins with the token-service that is whole just now. @param {string} target @param {object} body */
  const post = async (target, body) => {
    for (const service of services) {
      const response = await fetch(`${urlOf(service, 'API_PORT')}${target}`, {
        method: 'POST',
        headers: { cookie, 'content-type': 'application/json' },
        body: JSON.stringify(body),
        signal: AbortSignal.timeout(40_000),
      }).catch(() => undefined);
      if (response && response.status < 500) return { status: response.status, body: await response.json() };
    }
    return { status: 503, body: {} };
  };
  const issue = async () => {
    const { status, body } = await post('/v1/tokens', { name: 'a token' });
    if (status === 201) tokens.push(body);
  };
  for (let i = 0; i < 40; i++) await issue();
  let running = true;
  const changes = (async () => {
    for (let i = 0; running; i++) {
      await sleep(EVERY_MS);
      await issue();
      const victim = tokens[(i * 7) % tokens.length];
      if (!victim || revocations.some(({ token }) => token === victim.id)) continue;
      const startMs = performance.now();
      const { status, body } = await post(`/v1/tokens/${victim.id}/revoke`, { reason: 'no_longer_needed' });
      const endMs = status === 200 && body.effective ? performance.now() : Number.POSITIVE_INFINITY;
      revocations.push({ token: victim.id, startMs, endMs, status });
    }
  })();
  const loops = gateways.flatMap((gateway) => [0, 1].map((offset) => loop(gateway, offset)));
  return {
    phases,
    /** The system status from the token-service that was replaced first, once it responds. */
    system: async () => {
      const response = await fetch(`${urlOf(first, 'API_PORT')}/v1/system`, { headers: { cookie } });
      if (response.status !== 200) return `${response.status}`;
      const { guarantee, versions } = await response.json();
      const verifiers = versions.verifiers.map(
        (/** @type {{ version: string, verifiers: number }} */ one) => `${one.verifiers} of ${one.version || '0.1'}`,
      );
      return `guarantee ${guarantee}, verifiers ${verifiers.join(', ')}`;
    },
    stop: async () => {
      running = false;
      await Promise.all([changes, ...loops]);
      return { phases, checks, revocations, issued: tokens.length };
    },
  };

  /** @param {Process} gateway @param {number} offset */
  async function loop(gateway, offset) {
    const caller = new Caller(urlOf(gateway, 'PORT'), '/guarded');
    for (let i = offset; running; i++) {
      await sleep(5);
      const token = tokens[i % tokens.length];
      if (gateway.drained || !token) continue;
      const startMs = performance.now();
      const verdict = verdictOf(await caller.present(token.secret));
      checks.push({ token: token.id, gateway: gateway.name, startMs, endMs: performance.now(), verdict });
    }
    caller.close();
  }
}

/** @param {Awaited<ReturnType<Awaited<ReturnType<typeof startLoad>>['stop']>>} history @returns whether nothing was wrong */
function report({ phases, checks, revocations, issued }) {
  const { stale, wronged } = evaluate(checks, revocations);
  const last = phases.at(-1)?.system ?? '';
  console.log(
    'step                                    checks  503/none  revoked  pending or 503  median ms  most ms  GET /v1/system',
  );
  phases.forEach(({ name, startMs, system }, i) => {
    const endMs = phases[i + 1]?.startMs ?? Number.POSITIVE_INFINITY;
    const within = (/** @type {{ startMs: number }} */ one) => one.startMs >= startMs && one.startMs < endMs;
    const asked = checks.filter(within);
    const lost = asked.filter(({ verdict }) => verdict === 'unavailable' || verdict === 'unreachable');
    const revoked = revocations.filter(within);
    const took = revoked.map((one) => one.endMs - one.startMs).sort((a, b) => a - b);
    const cells = [
      asked.length,
      lost.length,
      revoked.length,
      took.filter((ms) => ms === Number.POSITIVE_INFINITY).length,
    ];
    const times = [took[Math.floor(took.length / 2)] ?? 0, took.at(-1) ?? 0].map((ms) => Math.round(ms));
    console.log(
      `${name.padEnd(36)}${[...cells, ...times].map((cell) => String(cell).padStart(10)).join('')}  ${system}`,
    );
  });
  const lost = checks.filter(({ verdict }) => verdict === 'unavailable' || verdict === 'unreachable').length;
  console.log(
    `\n${checks.length} checks, ${issued} tokens issued, ${revocations.length} revoked: ${stale.length} stale, ${wronged.length} good requests denied, ${lost} without a verdict (503 or no response)`,
  );
  for (const check of [...stale, ...wronged].slice(0, 5)) console.log(JSON.stringify(check));
  if (!last.startsWith('guarantee 3')) console.log(`at the end the system did not give the guarantee: ${last}`);
  return stale.length + wronged.length === 0 && last.startsWith('guarantee 3');
}

/** @param {string} name @param {string} app @param {string | undefined} portName @param {Record<string, string>} env @returns {Promise<Process>} */
async function described(name, app, portName, env) {
  const [port, ops, authz] = await freePorts(3);
  const ports = { ...(portName && { [portName]: String(port) }), OPS_PORT: String(ops), AUTHZ_PORT: String(authz) };
  const entry = `apps/${app}/dist/main.js`;
  const made = { name, entry, env: { ...env, ...ports }, opsUrl: `http://127.0.0.1:${ops}`, drained: false };
  return made;
}

/** @param {Process} one @param {string} from */
async function start(one, from) {
  one.running = await spawnService(path.join(from, one.entry), one.env, {
    readyUrl: `${one.opsUrl}/readyz`,
    readyTimeoutMs: 60_000,
  });
  const { running } = one;
  closing.push(() => running.kill());
}

/** @param {Process} one */
const stop = async (one) => one.running?.stop();

/** @param {string} from @param {string} url */
async function migrate(from, url) {
  const entry = path.join(from, 'apps/token-service/dist/migrate.js');
  const running = await spawnService(entry, { DATABASE_URL: url, LOG_LEVEL: 'info' }, { readyText: '' });
  const { code } = await running.exited;
  if (code !== 0) throw new Error(`migrating ended with ${code}:\n${running.logs()}`);
}

/** @param {Process} one @param {string} port */
const urlOf = (one, port) => `http://127.0.0.1:${one.env[port]}`;

/** @param {Record<string, string>} env @param {string[]} names */
const without = (env, ...names) => Object.fromEntries(Object.entries(env).filter(([name]) => !names.includes(name)));

try {
  process.exitCode = (await drill()) ? 0 : 1;
} finally {
  for (const close of closing.splice(0).reverse()) await close();
}
