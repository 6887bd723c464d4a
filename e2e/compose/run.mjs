/**
 * `npm run compose-drills`: docker-compose.yml with three gateways under 20 requests a second, and what can happen to it. As
 * project latchkey-entrance-drills, whose containers and volumes are removed before and after. Needs Docker, and root for kill.
 * COMPOSE and DOCKER name the commands; image latchkey:local must exist or be buildable. Prints a line for each drill; exits
 * with 1 when one failed more requests than it can. Arguments: words of the names of the drills to run; none: all.
 */
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { freePorts } from '@latchkey/testing';
import { changesOf } from './changes.mjs';
import { Load } from './load.mjs';

const execute = promisify(execFile);
const repository = path.join(import.meta.dirname, '../..');
const words = (/** @type {string} */ text) => text.split(' ').filter(Boolean);
/** Requests that a crash can cost: what was open. The token-service and PostgreSQL serve lists and changes. @type {Record<string, number>} */
const FAILED_MAX = { gateway: 2, 'token-service': 2, postgres: 2 };
const only = process.argv.slice(2);

const [port = 0, upstreamPort = 0] = await freePorts(2);
const url = `http://127.0.0.1:${port}`;
const config = mkdtempSync(path.join(tmpdir(), 'latchkey-config-'));
const env = {
  ...process.env,
  COMPOSE_PROJECT_NAME: 'latchkey-entrance-drills',
  COMPOSE_PROFILES: '',
  PORT: String(port),
  CONFIG_DIR: config,
};
/** @param {string[]} command @param {string[]} args */
async function run([program = '', ...first], args) {
  const { stdout } = await execute(program, [...first, ...args], { cwd: repository, env, maxBuffer: 2 ** 26 });
  return stdout.trim();
}
const compose = (/** @type {string[]} */ ...args) => run(words(process.env['COMPOSE'] || 'docker compose'), args);
const docker = (/** @type {string[]} */ ...args) => run(words(process.env['DOCKER'] || 'docker'), args);
/** Runs a line that an operator was told to run. */
const sh = (/** @type {string} */ line) =>
  run(['sh', '-ec'], [line.replace('docker compose', process.env['COMPOSE'] || 'docker compose')]);
/** Calls the management API as the administrator. */
const call = async (/** @type {string} */ target) =>
  (await fetch(`${url}${target}`, { headers: { cookie: caller.cookie } })).json();
const idsOf = async (/** @type {string} */ service) => (await compose('ps', '-q', service)).split('\n');
const up = () => compose('up', '-d', '--wait', '--scale=gateway=3');

/** An API on this machine, outside of the project: it shows what it was sent. */
const upstream = createServer((request, response) => response.end(JSON.stringify(request.headers)));
await new Promise((resolve) => upstream.listen(upstreamPort, '0.0.0.0', () => resolve(undefined)));
writeFileSync(
  path.join(config, 'routes.yaml'),
  `routes: [{name: own, path: /own/*, upstream: "http://host.docker.internal:${upstreamPort}", require: {}}]\n`,
);
writeFileSync(path.join(config, 'scopes.yaml'), 'scopes: [{name: own:read, description: Read, members: true}]\n');

let isWrong = false;
/** The administrator's cookie, and a token whose requests are counted. */
const caller = { cookie: '', token: '' };

/**
 * @param {string} name @param {number} failedMax how many requests can fail @param {() => Promise<unknown>} event
 * @param {number} [requestsMin] so many are sent at least
 */
async function drill(name, failedMax, event, requestsMin = 0) {
  if (only.length && !only.some((word) => name.includes(word))) return;
  const load = new Load({ url, ...caller, proxiedPath: '/own/thing', scope: 'own:read' });
  await sleep(2_000);
  const startMs = performance.now();
  let broken = '';
  await event().catch((/** @type {Error} */ error) => {
    broken = `; not done: ${error.message.slice(-500)}`;
  });
  const tookS = ((performance.now() - startMs) / 1_000).toFixed(1);
  await sleep(13_000);
  while (load.count < requestsMin && !broken) await sleep(500);
  const { sent, failed, stale, revocations, slow, p99Ms } = await load.stop();
  const isOver = failed.length > failedMax || stale.length > 0 || broken !== '';
  isWrong ||= isOver;
  /** @type {Record<string, number>} */
  const failures = {};
  for (const { failure } of failed) failures[failure] = (failures[failure] ?? 0) + 1;
  console.log(
    `${isOver ? 'FAILED ' : ''}${name}: ${failed.length} of ${sent} failed ${JSON.stringify(failures)} (at most ${failedMax}); ${stale.length} of ${revocations} revoked tokens accepted; ${slow} proxied over 2 s, p99 ${p99Ms.toFixed(0)} ms; took ${tookS} s${broken}`,
  );
}

const check = (/** @type {string} */ what, /** @type {boolean} */ holds) => {
  isWrong ||= !holds;
  console.log(`${holds ? '' : 'FAILED '}${what}`);
};

try {
  await compose('down', '--volumes', '--remove-orphans', '--timeout=5');
  const start = performance.now();
  await up();
  console.log(`first up, image present: ${Math.round((performance.now() - start) / 1_000)} s`);
  const before = await docker('ps', '-q', '--no-trunc');
  await up();
  check('a second up replaces nothing', (await docker('ps', '-q', '--no-trunc')) === before);

  const password = await compose('run', '--rm', 'secrets', 'password');
  const headers = { 'content-type': 'application/json', origin: url };
  const session = await fetch(`${url}/v1/session`, {
    method: 'POST',
    headers,
    body: JSON.stringify({ email: 'admin@latchkey.local', password }),
  });
  const cookie = session.headers.getSetCookie()[0]?.split(';', 1)[0] ?? '';
  const issued = await fetch(`${url}/v1/tokens`, {
    method: 'POST',
    headers: { ...headers, cookie },
    body: JSON.stringify({ name: 'drills', scopes: ['own:read'] }),
  });
  const { secret: token } = await issued.json();
  Object.assign(caller, { cookie, token });

  const forged = { 'x-forwarded-for': '6.6.6.6', 'x-forwarded-host': 'evil.example', 'x-forwarded-proto': 'https' };
  const strange = { ...forged, 'x-real-ip': '6.6.6.6', forwarded: 'for=6.6.6.6', 'x-request-id': 'chosen' };
  const heard = await fetch(`${url}/own/a?access=${randomUUID()}`, {
    headers: { ...strange, authorization: `Bearer ${token}` },
  });
  const text = await heard.text();
  check('an API outside of the project is reached', heard.status === 200);
  check('nothing of what a stranger says about addresses arrives', !/6\.6\.6\.6|evil|chosen|"https"/.test(text));
  await fetch(`${url}/own/a?access_token=${token}`);
  check('no log has the token', !(await compose('logs')).includes(token));

  const kill = (/** @type {string} */ service) => async () => {
    const [id = ''] = await idsOf(service);
    process.kill(Number(await docker('inspect', '-f', '{{.State.Pid}}', id)), 'SIGKILL');
  };
  await drill('nothing', 0, async () => undefined);
  for (const service of ['gateway', 'token-service', 'jobs', 'redis', 'postgres'])
    await drill(`kill -9 of a ${service}`, FAILED_MAX[service] ?? 0, kill(service));
  const [frozen = ''] = await idsOf('gateway');
  await drill('docker pause of a gateway', 20, () => docker('pause', frozen));
  await drill('docker unpause', 0, () => docker('unpause', frozen));
  await drill('docker restart of a gateway', 0, () => docker('restart', frozen));
  await drill('kill -9 of the entrance', 60, kill('entrance'));

  for (const { name, change } of changesOf({ compose, sh, call, config, env })) await drill(name, 0, change, 1_000);

  await compose('stop', 'gateway');
  await sleep(2_000);
  const none = await fetch(`${url}/own/a`);
  const problem = await none.json();
  check(
    'without a gateway: 503, a problem, Retry-After',
    none.status === 503 &&
      problem.code === 'unavailable' &&
      Boolean(problem.requestId) &&
      none.headers.has('retry-after'),
  );
} finally {
  upstream.close();
  await compose('down', '--volumes', '--remove-orphans', '--timeout=5');
  rmSync(config, { recursive: true });
}
process.exitCode = isWrong ? 1 : 0;
