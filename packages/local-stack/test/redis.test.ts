import { readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { Redis as Client } from 'ioredis';
import { freePort, processIdentity, type Redis, type RedisOptions, startRedis, stillRuns } from '../src/index.js';
import { temporaryFolder, visibleOf } from './helpers.js';

let folder: ReturnType<typeof temporaryFolder>;
let running: Redis[];
let clients: Client[];

beforeEach(() => {
  folder = temporaryFolder();
  running = [];
  clients = [];
});

afterEach(async () => {
  for (const client of clients) client.disconnect();
  for (const server of running) await server.stop();
  folder.remove();
});

async function start(options: Partial<RedisOptions> = {}): Promise<Redis> {
  const server = await startRedis({ dir: path.join(folder.dir, 'redis'), ...options });
  running.push(server);
  return server;
}

function connect(url: string): Client {
  const client = new Client(url, { maxRetriesPerRequest: 0, retryStrategy: () => null });
  client.on('error', () => undefined);
  clients.push(client);
  return client;
}

test('accepts commands when the start resolves, with its password only, and runs scripts', async () => {
  const server = await start();
  expect(await connect(server.url).eval('return redis.call("INCR", KEYS[1])', 1, 'n')).toBe(1);
  const url = new URL(server.url);
  url.password = '';
  await expect(connect(url.href).get('n')).rejects.toThrow();
});

test('listens on this machine only and never evicts data', async () => {
  const client = connect((await start()).url);
  expect(await client.config('GET', 'bind')).toEqual(['bind', '127.0.0.1']);
  expect(await client.config('GET', 'maxmemory-policy')).toEqual(['maxmemory-policy', 'noeviction']);
});

test('has its password neither in its arguments nor environment, and only its user can read its files', async () => {
  const server = await start();
  expect(visibleOf(server.pid, (file) => readFileSync(file, 'latin1'))).not.toContain(server.password);
  for (const file of ['password', 'redis.conf']) {
    expect(statSync(path.join(folder.dir, 'redis', file)).mode & 0o777).toBe(0o600);
  }
});

test('keeps its data and its address across a stop', async () => {
  const first = await start();
  await connect(first.url).set('kept', 'yes');
  await first.stop();
  const second = await start({ port: first.port });
  expect(second.url).toBe(first.url);
  expect(await connect(second.url).get('kept')).toBe('yes');
});

test('keeps no data across a stop without persistence', async () => {
  const first = await start({ persistent: false });
  await connect(first.url).set('kept', 'yes');
  await first.stop();
  const second = await start({ persistent: false });
  expect(await connect(second.url).get('kept')).toBeNull();
});

test('reports its exit when it is killed, and starts again at the same port', async () => {
  const first = await start();
  process.kill(first.pid, 'SIGKILL');
  expect(await first.exited).toEqual({ code: null, signal: 'SIGKILL' });
  const second = await start({ port: first.port });
  expect(await connect(second.url).ping()).toBe('PONG');
});

test('names a port that another program uses', async () => {
  const other = createServer();
  const port = await freePort();
  await new Promise<void>((resolve) => other.listen(port, '127.0.0.1', resolve));
  await expect(start({ port })).rejects.toThrow(`Redis cannot listen on 127.0.0.1:${port}, another program does`);
  other.close();
});

test('rejects a folder that another server uses', async () => {
  await start();
  await expect(start()).rejects.toThrow(`is in use by process ${process.pid}`);
});

test('leaves no process behind when it is stopped', async () => {
  const server = await start();
  const identity = processIdentity(server.pid) as string;
  await server.stop();
  expect(stillRuns(identity)).toBe(false);
});
