/** What an operator does with servers, data folders and ledgers. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, chownSync, cpSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { asService, ownServer, waitFor } from '@latchkey/testing';
import { Client } from 'pg';
import { serviceOf } from './place.mjs';

/** @typedef {import('./place.mjs').Place} Place */

export const repository = path.resolve(import.meta.dirname, '../..');

/** Copies the data folder of the server, which is stopped for it. @param {Place} place */
export async function copyFolder({ server }) {
  await server.stop();
  const copy = server.copy();
  await server.start();
  return copy;
}

/** Puts a copy in the place of the data folder. @param {Place} place @param {string} copy @param {() => void} restored */
export async function putBack({ server }, copy, restored) {
  await server.stop();
  server.putBack(copy);
  await server.start();
  restored();
}

/** Starts a server on a copy of a data folder, as on another machine. @param {Place} place @param {string} copy */
export async function serverFrom({ server, dir, closing }, copy) {
  const folder = path.join(dir, 'other');
  mkdirSync(folder);
  execFileSync('cp', ['-a', copy, path.join(folder, 'data')]);
  cpSync(path.join(server.dir, 'password'), path.join(folder, 'password'));
  const other = await ownServer({ dir: folder });
  closing.push(() => other.close());
  return other;
}

/** Restarts the token-service, or starts it, on another server, database or ledger. @param {Place} place @param {{ url?: string, ledger?: string }} [to] */
export const startService = (place, { url, ledger } = {}) =>
  serviceOf(place).restart({ ...(url && { DATABASE_URL: asService(url) }), ...(ledger && { LEDGER_DIR: ledger }) });

/** @param {Place} place */
export const stopService = (place) => serviceOf(place).process.stop();

/** Runs `latchkey ledger`. @param {Place} place @param {string[]} args @param {string} [dir] */
export function ledgerCommand({ cluster }, args, dir = cluster.ledger.dir) {
  const program = path.join(repository, 'apps/token-service/dist/ledger-command.js');
  mkdirSync(dir, { recursive: true });
  const env = { PATH: process.env['PATH'], LEDGER_DIR: dir, LEDGER_KEY: cluster.ledger.key };
  execFileSync(process.execPath, [program, ...args], { env, stdio: ['ignore', 'ignore', 'inherit'] });
}

/** Removes the last lines of the segment that was written last. @param {Place} place @param {number} lines */
export function cutLedger({ cluster }, lines) {
  const { dir } = cluster.ledger;
  const segments = readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.\d{6}$/.test(name))
    .map((name) => path.join(dir, name));
  const newest = segments.sort((a, b) => statSync(a).mtimeMs - statSync(b).mtimeMs).at(-1);
  if (!newest) throw new Error(`${dir} has no segment`);
  const text = readFileSync(newest, 'utf8').trimEnd().split('\n');
  if (text.length <= lines) throw new Error(`${newest} has only ${text.length} lines`);
  writeFileSync(newest, `${text.slice(0, -lines).join('\n')}\n`);
}

/** A connection to the server's database `postgres`. @param {Place} place */
export async function maintenance({ server, closing }) {
  const url = new URL(server.url);
  url.pathname = '/postgres';
  const client = new Client({ connectionString: url.href });
  client.on('error', () => undefined);
  await client.connect();
  closing.push(() => client.end());
  return client;
}

/** Archives the write-ahead log to a folder. @param {Place} place */
export async function archive({ server, dir }) {
  const folder = path.join(dir, 'archive');
  mkdirSync(folder);
  giveTo(folder, server);
  await server.query(`ALTER SYSTEM SET archive_mode = 'on'`);
  await server.query(`ALTER SYSTEM SET archive_command = 'cp %p ${folder}/%f'`);
  await server.stop();
  await server.start();
  return folder;
}

/**
 * Copies the data folder while the server runs.
 * @param {Place} place
 * @returns {Promise<string>}
 */
export async function copyRunning({ server, dir }) {
  const session = new Client({ connectionString: server.url });
  await session.connect();
  const copy = path.join(dir, 'base');
  try {
    await session.query(`SELECT pg_backup_start('drill', true)`);
    try {
      execFileSync('cp', ['-a', path.join(server.dir, 'data'), copy], { stdio: 'ignore' });
    } catch {
      // Files that vanish meanwhile are in the log.
    }
    const { rows } = await session.query('SELECT labelfile FROM pg_backup_stop(true)');
    write(path.join(copy, 'backup_label'), String(rows[0].labelfile), server);
  } finally {
    await session.end();
  }
  return copy;
}

/** Makes a copied folder recover to a time when it is started. @param {Place} place @param {string} copy @param {string} archived @param {string} time */
export function recoverTo({ server }, copy, archived, time) {
  const settings = [
    `restore_command = 'cp ${archived}/%f %p'`,
    `recovery_target_time = '${time}'`,
    `recovery_target_action = 'promote'`,
    `archive_mode = 'off'`,
  ];
  write(path.join(copy, 'postgresql.auto.conf'), `${settings.join('\n')}\n`, server);
  write(path.join(copy, 'recovery.signal'), '', server);
}

/**
 * Starts the folder of the stopped server with a copy of its programs, at the same port.
 * @param {Place} place
 */
export async function startCopiedPrograms({ server, dir, closing }) {
  const data = path.join(server.dir, 'data');
  // The command line of its last start: the program, and each argument in quotes.
  const [program, ...rest] = readFileSync(path.join(data, 'postmaster.opts'), 'utf8').trim().split(' "');
  if (!program) throw new Error('postmaster.opts is empty');
  const programs = path.join(dir, 'programs');
  execFileSync('cp', ['-a', path.dirname(path.dirname(program)), programs]);
  chmodSync(programs, 0o755);
  const { uid, gid } = statSync(data);
  const args = rest.map((arg) => arg.replace(/"$/, ''));
  const child = spawn(path.join(programs, 'bin', 'postgres'), args, {
    env: { PATH: process.env['PATH'], LC_ALL: 'C', TZ: 'UTC' },
    cwd: '/',
    stdio: 'ignore',
    ...(process.getuid?.() === 0 && { uid, gid }),
  });
  const kill = () => child.kill('SIGKILL');
  process.once('exit', kill);
  closing.push(async () => {
    process.off('exit', kill);
    if (child.exitCode !== null) return;
    child.kill('SIGINT');
    await once(child, 'exit');
  });
  await waitFor(async () => (await server.query('SELECT 1')).length === 1, { timeoutMs: 30_000, what: 'the programs' });
}

/** From here on the standby receives nothing, and commits do not wait for it. @param {Place} place */
export async function detachStandBy({ server, standBy }) {
  await server.query('ALTER SYSTEM RESET synchronous_standby_names');
  await server.query('SELECT pg_reload_conf()');
  const second = new Client({ connectionString: standBy?.url });
  await second.connect();
  await second.query(`ALTER SYSTEM SET primary_conninfo = ''`);
  await second.query('SELECT pg_reload_conf()');
  await second.end();
  await waitFor(async () => (await server.query('SELECT 1 FROM pg_stat_replication')).length === 0);
}

/** The primary stops, the standby is promoted, and the address of the database leads there. @param {Place} place @param {() => void} restored */
export async function failOver({ server, standBy, cluster }, restored) {
  if (!standBy) throw new Error('this drill needs a standby');
  await server.stop();
  await standBy.promote();
  for (const link of cluster.databaseLinks) {
    link.lead(standBy.url);
    link.cut();
    link.heal();
  }
  restored();
}

/** @param {string} file @param {string} text @param {Place['server']} server whose user owns it */
function write(file, text, server) {
  writeFileSync(file, text, { mode: 0o600 });
  giveTo(file, server);
}

/** @param {string} file @param {Place['server']} server */
function giveTo(file, server) {
  const { uid, gid } = statSync(path.join(server.dir, 'data'));
  if (process.getuid?.() === 0) chownSync(file, uid, gid);
}
