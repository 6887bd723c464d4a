import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { spawnService, waitFor } from '../src/index.js';

let dir: string;

beforeAll(() => {
  dir = mkdtempSync(path.join(tmpdir(), 'latchkey-service-'));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

function script(name: string, text: string): string {
  const file = path.join(dir, `${name}.mjs`);
  writeFileSync(file, text);
  return file;
}

const freePort = `import { createServer } from 'node:http';
const server = createServer((request, response) => response.end('ok'));
server.listen(Number(process.env.OPS_PORT ?? 0), '127.0.0.1', () => console.log('listening', server.address().port));`;

test('is handed over ready, with its output, and stops in order', async () => {
  const entry = script(
    'orderly',
    `${freePort}\nprocess.on('SIGTERM', () => { console.log('bye'); process.exit(0); });`,
  );
  const service = await spawnService(entry, {}, { readyText: 'listening' });
  const port = /listening (\d+)/.exec(service.logs())?.[1];
  expect((await fetch(`http://127.0.0.1:${port}/`)).status).toBe(200);
  await service.stop();
  await service.stop();
  expect(await service.exited).toEqual({ code: 0, signal: null });
  expect(service.logs()).toContain('bye');
});

test('waits until the given URL returns 200', async () => {
  const probe = await spawnService(script('probe', freePort), {}, { readyText: 'listening' });
  const port = /listening (\d+)/.exec(probe.logs())?.[1] as string;
  await probe.stop();
  const late = script('late', `await new Promise((r) => setTimeout(r, 300));\n${freePort}`);
  await using service = await spawnService(late, { OPS_PORT: port }, { readyUrl: `http://127.0.0.1:${port}/readyz` });
  expect((await fetch(`http://127.0.0.1:${port}/`)).status).toBe(200);
  expect(service.pid).toBeGreaterThan(0);
});

test('gets the environment given to it and none of this process', async () => {
  process.env['LATCHKEY_ONLY_HERE'] = 'yes';
  const entry = script(
    'env',
    "console.log('env', Object.keys(process.env).sort().join()); setInterval(() => {}, 1000);",
  );
  await using service = await spawnService(entry, { OPS_PORT: '1' }, { readyText: 'env' });
  delete process.env['LATCHKEY_ONLY_HERE'];
  expect(service.logs().trim()).toBe('env HOME,OPS_PORT,PATH');
});

test('the error for a service that exits before it is ready holds what it printed', async () => {
  const entry = script('broken', "console.error('DATABASE_URL is missing'); process.exit(1);");
  await expect(spawnService(entry, {}, { readyText: 'never' })).rejects.toThrow(
    /exited before it was ready; it printed:\nDATABASE_URL is missing/,
  );
});

test('can be frozen, killed, and stopped while frozen', async () => {
  const entry = script('ticking', "setInterval(() => console.log('tick'), 10);");
  const service = await spawnService(entry, {}, { readyText: 'tick' });
  service.pause();
  await service.stop(1_000);
  expect((await service.exited).signal).not.toBeNull();
  const other = await spawnService(entry, {}, { readyText: 'tick' });
  await other.kill();
  expect(await other.exited).toEqual({ code: null, signal: 'SIGKILL' });
});

test('the error for a timeout names what did not hold, and why', async () => {
  const failing = waitFor(() => Promise.reject(new Error('not yet')), { timeoutMs: 50, what: 'the port opening' });
  await expect(failing).rejects.toThrow('the port opening did not hold within 50 ms');
  await expect(failing).rejects.toHaveProperty('cause', new Error('not yet'));
});
