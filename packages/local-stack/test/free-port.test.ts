import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import path from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from '@jest/globals';
import { freePorts } from '../src/index.js';

const run = promisify(execFile);
const built = path.join(import.meta.dirname, '../dist/free-port.js');

/** Another process that chooses ports, and ends. */
async function elsewhere(count: number, range: { from: number; to: number }): Promise<number[]> {
  const script = `const { freePorts } = await import(process.argv[1]);
    console.log(JSON.stringify(await freePorts(${count}, ${JSON.stringify(range)})));`;
  const { stdout } = await run(process.execPath, ['--input-type=module', '-e', script, built]);
  return JSON.parse(stdout) as number[];
}

test('a chosen port is given to no other caller, in this process or another, though nothing listens on it yet', async () => {
  const [from] = (await elsewhere(3, { from: 10_000, to: 32_000 })) as [number];
  const range = { from, to: from + 3 };
  expect(await freePorts(2, { from, to: from + 2 })).toEqual([from, from + 1]);
  await expect(freePorts(2, range)).rejects.toThrow(/no 2 free ports/);
  await expect(elsewhere(2, range)).rejects.toThrow(/no 2 free ports/);
  // What a process that has ended had chosen is free again.
  expect(await elsewhere(1, range)).toEqual([from + 2]);
  expect(await elsewhere(1, range)).toEqual([from + 2]);
});

test('a port on which a server listens is not chosen', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  try {
    await expect(freePorts(1, { from: port, to: port + 1 })).rejects.toThrow(/no 1 free ports/);
  } finally {
    server.close();
  }
});
