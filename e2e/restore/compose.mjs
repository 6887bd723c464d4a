/** Latchkey in containers, as docker-compose.yml starts it, and what an operator does with it. */
import { execFile } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify, stripVTControlCharacters } from 'node:util';
import { freePorts, waitFor } from '@latchkey/testing';
import { repository } from './servers.mjs';

/**
 * @typedef {import('./place.mjs').Installation & Containers} ComposePlace
 *
 * @typedef {object} Containers
 * @property {(...args: string[]) => Promise<string>} compose runs `docker compose` and returns what it printed
 * @property {(...args: string[]) => Promise<string>} docker
 * @property {(volume: string) => string} volume its full name
 * @property {(volume: string, script: string) => Promise<string>} inVolume runs a shell script as root, with the volume at
 * `/volume` and `dir` at `/copies`
 * @property {() => Promise<unknown>} up starts everything and waits until it is healthy
 * @property {() => Promise<unknown>} databaseAnswers waits until PostgreSQL accepts connections
 */

/** An installation of its own beside others of the same machine; removed with its volumes before and after each drill. */
const PROJECT = 'latchkey-drills';
const ADMIN_EMAIL = 'admin@latchkey.local';
const IMAGE = 'latchkey:local';
/** The published port opens a connection to a gateway for each request: more would use up its ports. */
const PRESENT_EVERY_MS = 1_000;
/** The same address in front of two gateways and the token-service behind them. */
const GATEWAYS = 2;

const execute = promisify(execFile);
const words = (/** @type {string} */ text) => text.split(' ').filter(Boolean);
const composeCommand = words(process.env['COMPOSE'] || 'docker compose');
const dockerCommand = words(process.env['DOCKER'] || 'docker');

/** @param {string[]} command @param {string[]} args @param {NodeJS.ProcessEnv} [env] */
async function output([program = '', ...first], args, env = process.env) {
  try {
    const { stdout } = await execute(program, [...first, ...args], { cwd: repository, env, maxBuffer: 2 ** 28 });
    return stdout;
  } catch (error) {
    const { stderr = '', message } = /** @type {Error & { stderr?: string }} */ (error);
    throw new Error(`${args.join(' ')} failed: ${stderr.trim().slice(-2_000) || message}`, { cause: error });
  }
}

/** Builds the image, once for all drills. */
export const buildImage = () => output(composeCommand, ['build', 'secrets']);

/** @returns {Promise<ComposePlace>} */
export async function openCompose() {
  const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-drill-'));
  const backups = path.join(dir, 'backups');
  mkdirSync(backups);
  // Of containers' users, who write there.
  for (const folder of [dir, backups]) chmodSync(folder, 0o777);
  const port = process.env['PORT'] || (await freePorts(1))[0];
  const url = `http://127.0.0.1:${port}`;
  const env = {
    ...process.env,
    COMPOSE_PROJECT_NAME: PROJECT,
    COMPOSE_PROFILES: 'demo',
    PORT: String(port),
    PUBLIC_URL: url,
    BACKUP_DIR: backups,
    ADMIN_EMAIL,
    ADMIN_PASSWORD: '',
  };
  const compose = (/** @type {string[]} */ ...args) => output(composeCommand, args, env);
  const docker = (/** @type {string[]} */ ...args) => output(dockerCommand, args);
  const inContainer = (/** @type {string[]} */ mounts, /** @type {string} */ script) =>
    docker('run', '--rm', '--network=none', '--user=0', ...mounts, '--entrypoint=sh', IMAGE, '-ec', script);
  const volume = (/** @type {string} */ name) => `${PROJECT}_${name}`;
  const remove = () => compose('down', '--volumes', '--remove-orphans', '--timeout=5');
  const close = async () => {
    await remove();
    await inContainer(['-v', `${dir}:/copies`], 'find /copies -mindepth 1 -delete');
    rmSync(dir, { recursive: true });
  };
  const up = () => compose('up', '-d', '--wait', `--scale=gateway=${GATEWAYS}`);
  // Compose begins lines with control characters even where no terminal reads them.
  const logsOf = async (/** @type {string} */ service) =>
    stripVTControlCharacters(await compose('logs', '--no-log-prefix', service));
  const databaseAnswers = () =>
    waitFor(
      async () => {
        await compose('exec', '-T', 'postgres', 'pg_isready', '-q', '-h127.0.0.1', '-Upostgres');
        return true;
      },
      { timeoutMs: 120_000, what: 'PostgreSQL' },
    );
  /** @param {string} text a SELECT */
  const query = async (text) => {
    const json = `SELECT coalesce(json_agg(q), '[]') FROM (${text}) q`;
    return JSON.parse(await compose('exec', '-T', 'postgres', 'psql', '-Upostgres', '-dlatchkey', '-Atc', json));
  };

  try {
    await remove();
    await up();
    const password = /^password: (\S+)$/m.exec(await logsOf('secrets'))?.[1];
    if (!password) throw new Error('no password was printed for the first administrator');
    return {
      cluster: await signedIn(url, { email: ADMIN_EMAIL, password }),
      server: { query },
      dir,
      presentEveryMs: PRESENT_EVERY_MS,
      logs: () => logsOf('token-service'),
      close,
      ...{ compose, docker, volume, up, databaseAnswers },
      inVolume: (name, script) => inContainer(['-v', `${volume(name)}:/volume`, '-v', `${dir}:/copies`], script),
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** @param {string} url @param {{ email: string, password: string }} admin @returns {Promise<import('./requests.mjs').Cluster>} */
async function signedIn(url, admin) {
  let cookie = '';
  /** @type {import('./requests.mjs').Cluster['call']} */
  const call = async (method, target, body, { headers = {}, timeoutMs = 60_000 } = {}) => {
    const response = await fetch(new URL(target, url), {
      method,
      headers: { cookie, ...(body !== undefined && { 'content-type': 'application/json' }), ...headers },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(timeoutMs),
    });
    const text = await response.text();
    const set = response.headers.getSetCookie()[0];
    if (set) cookie = set.split(';', 1)[0] ?? '';
    return { status: response.status, body: text ? JSON.parse(text) : {} };
  };
  const { status } = await call('POST', '/v1/session', admin);
  if (status !== 200) throw new Error(`signing in returned ${status}`);
  return {
    gateways: [{ name: 'the gateways', url }],
    tokenServices: [{ name: 'the token-service', url }],
    guardedPath: '/demo/whoami',
    ...{ admin, cookie, call },
  };
}
