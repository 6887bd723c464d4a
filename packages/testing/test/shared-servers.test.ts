import { spawn } from 'node:child_process';
import { afterEach, expect, test } from '@jest/globals';
import { processIdentity, stillRuns } from '@latchkey/local-stack';
import { Client } from 'pg';
import { sharedServers } from '../src/index.js';

const ended: (() => void)[] = [];

afterEach(() => {
  for (const end of ended.splice(0)) end();
});

/** Another process that uses the shared servers as a test of another workspace would, outside `npm test`. */
async function anotherUser() {
  const entry = new URL('../dist/index.js', import.meta.url).href;
  const script = `import(${JSON.stringify(entry)}).then(async ({ sharedServers }) => {
    const servers = await sharedServers();
    console.log(JSON.stringify(servers));
    process.stdin.once('data', () => servers.close().then(() => process.exit(0)));
  });`;
  const { LATCHKEY_TEST_DATABASE_URL: _, ...env } = process.env;
  const child = spawn(process.execPath, ['-e', script], { env, stdio: ['pipe', 'pipe', 'inherit'] });
  ended.push(() => child.kill('SIGKILL'));
  const line = await new Promise<string>((resolve) => child.stdout.once('data', (chunk) => resolve(String(chunk))));
  const { databaseUrl } = JSON.parse(line) as { databaseUrl: string };
  const kill = async () => {
    child.kill('SIGKILL');
    await new Promise((resolve) => child.once('exit', resolve));
  };
  const close = async () => {
    child.stdin.write('leave\n');
    await new Promise((resolve) => child.once('exit', resolve));
  };
  return { databaseUrl, kill, close };
}

async function serverProcess(url: string): Promise<string> {
  const client = new Client({ connectionString: url });
  await client.connect();
  const { rows } = await client.query("SELECT pg_read_file('postmaster.pid', 0, 12) AS head");
  await client.end();
  return processIdentity(Number.parseInt(rows[0].head, 10)) as string;
}

test('processes that come at the same time share one PostgreSQL, which outlives a killed one', async () => {
  const [one, two] = await Promise.all([anotherUser(), anotherUser()]);
  expect(one.databaseUrl).toBe(two.databaseUrl);
  const server = await serverProcess(one.databaseUrl);
  await one.kill();
  const three = await anotherUser();
  expect(three.databaseUrl).toBe(two.databaseUrl);
  await two.close();
  expect(stillRuns(server)).toBe(true);
});

test('a server named in the environment is used as it is', async () => {
  const before = process.env['LATCHKEY_TEST_DATABASE_URL'];
  process.env['LATCHKEY_TEST_DATABASE_URL'] = 'postgres://someone@127.0.0.1:1/named';
  const servers = await sharedServers();
  expect(servers.databaseUrl).toBe('postgres://someone@127.0.0.1:1/named');
  servers.release();
  if (before === undefined) delete process.env['LATCHKEY_TEST_DATABASE_URL'];
  else process.env['LATCHKEY_TEST_DATABASE_URL'] = before;
});
