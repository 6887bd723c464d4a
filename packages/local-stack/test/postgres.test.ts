import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { freePort, type Postgres, processIdentity, startPostgres, stillRuns } from '../src/index.js';
import { query, temporaryFolder, visibleOf } from './helpers.js';

let folder: ReturnType<typeof temporaryFolder>;
let running: Postgres[];

beforeEach(() => {
  folder = temporaryFolder();
  running = [];
});

afterEach(async () => {
  for (const server of running) await server.stop();
  folder.remove();
});

async function start(options: Partial<Parameters<typeof startPostgres>[0]> = {}): Promise<Postgres> {
  const server = await startPostgres({ dir: path.join(folder.dir, 'pg'), fast: true, ...options });
  running.push(server);
  return server;
}

test('accepts connections when the start resolves, on this machine only and with its password only', async () => {
  const server = await start();
  const [row] = await query(
    server.url,
    "SELECT current_setting('listen_addresses') AS at, current_setting('unix_socket_directories') AS sockets",
  );
  expect(row).toEqual({ at: '127.0.0.1', sockets: '' });
  const url = new URL(server.url);
  url.password = 'another';
  await expect(query(url.href, 'SELECT 1')).rejects.toThrow('password authentication failed');
});

test('has its password neither in its arguments nor environment, and only its user can read the file', async () => {
  const server = await start();
  const { password } = new URL(server.url);
  expect(password.length).toBeGreaterThan(20);
  expect(visibleOf(server.pid, (file) => readFileSync(file, 'latin1'))).not.toContain(password);
  expect(statSync(path.join(folder.dir, 'pg', 'password')).mode & 0o777).toBe(0o600);
});

test('inherits no variables of the environment it was started from', async () => {
  process.env['LATCHKEY_TEST_SECRET'] = 'only-for-the-parent';
  const server = await start();
  delete process.env['LATCHKEY_TEST_SECRET'];
  expect(visibleOf(server.pid, (file) => readFileSync(file, 'latin1'))).not.toContain('only-for-the-parent');
});

test('outside of tests every commit is flushed to disk before it is acknowledged', async () => {
  const server = await start({ fast: false });
  const [row] = await query(
    server.url,
    "SELECT current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS sync, current_setting('full_page_writes') AS pages",
  );
  expect(row).toEqual({ fsync: 'on', sync: 'on', pages: 'on' });
});

test('keeps its data and its password across a stop', async () => {
  const first = await start();
  await query(first.url, 'CREATE TABLE kept AS SELECT 42 AS value');
  await first.stop();
  const second = await start({ port: first.port });
  expect(second.url).toBe(first.url);
  expect(await query(second.url, 'SELECT value FROM kept')).toEqual([{ value: 42 }]);
});

test('reports its exit when it is killed, and starts again at the same port with all committed data', async () => {
  const first = await start();
  await query(first.url, 'CREATE TABLE kept AS SELECT 42 AS value');
  process.kill(first.pid, 'SIGKILL');
  expect(await first.exited).toEqual({ code: null, signal: 'SIGKILL' });
  const second = await start({ port: first.port });
  expect(await query(second.url, 'SELECT value FROM kept')).toEqual([{ value: 42 }]);
});

/** A server that another process started, which is then killed. */
async function startedByKilled(beforeKill: (server: number) => void): Promise<string> {
  const entry = new URL('../dist/index.js', import.meta.url).href;
  const script = `import(${JSON.stringify(entry)}).then(async ({ startPostgres }) => {
    const server = await startPostgres({ dir: ${JSON.stringify(path.join(folder.dir, 'pg'))}, fast: true });
    console.log(server.pid);
    setInterval(() => {}, 1000);
  });`;
  const crashing = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  const pid = Number(await new Promise((resolve) => crashing.stdout.once('data', resolve)));
  const identity = processIdentity(pid) as string;
  beforeKill(pid);
  crashing.kill('SIGKILL');
  await new Promise((resolve) => crashing.once('exit', resolve));
  return identity;
}

test('exits with the process that started it, even when that is killed', async () => {
  const identity = await startedByKilled(() => undefined);
  for (let tries = 0; tries < 500 && stillRuns(identity); tries++) await sleep(20);
  expect(stillRuns(identity)).toBe(false);
});

test('replaces a server that survived the process that started it', async () => {
  const identity = await startedByKilled((pid) => process.kill(pid, 'SIGSTOP'));
  expect(stillRuns(identity)).toBe(true);

  const server = await start();
  expect(stillRuns(identity)).toBe(false);
  expect(await query(server.url, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
});

test('does not touch an unrelated process whose pid is in a stale file', async () => {
  const first = await start();
  await first.stop();
  const unrelated = spawn('sleep', ['60']);
  const dir = path.join(folder.dir, 'pg');
  const identity = processIdentity(unrelated.pid as number) as string;
  writeFileSync(path.join(dir, 'process'), identity.replace(/^(\d+) \S+/, '$1 1'));
  writeFileSync(path.join(first.dataDir, 'postmaster.pid'), `${unrelated.pid}\n${first.dataDir}\n`);
  await start();
  expect(stillRuns(identity)).toBe(true);
  unrelated.kill();
});

test('rejects a folder that another server uses, naming its process', async () => {
  await start();
  await expect(start()).rejects.toThrow(`is in use by process ${process.pid}`);
});

test('names a port that another program uses', async () => {
  const other = createServer();
  const port = await freePort();
  await new Promise<void>((resolve) => other.listen(port, '127.0.0.1', resolve));
  await expect(start({ port })).rejects.toThrow(`PostgreSQL cannot listen on 127.0.0.1:${port}, another program does`);
  other.close();
});

test('an interrupted first start does not break the next one', async () => {
  const half = path.join(folder.dir, 'pg', 'data.new');
  mkdirSync(half, { recursive: true });
  writeFileSync(path.join(half, 'PG_VERSION'), '18\n');
  const server = await start();
  expect(await query(server.url, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
});

test('leaves no process behind when it is stopped, and can be stopped twice', async () => {
  const server = await start();
  const identity = processIdentity(server.pid) as string;
  await server.stop();
  await server.stop();
  expect(stillRuns(identity)).toBe(false);
  expect(await server.exited).toEqual({ code: 0, signal: null });
});
