import { expect, test } from '@jest/globals';
import { stack } from './stack.js';

const routes = (upstream: string) => `routes:\n  - { name: all, path: /all, upstream: "${upstream}", require: {} }\n`;

/** Whether a server responds at this address. */
async function responds(host: string, port: number): Promise<boolean> {
  try {
    const response = await fetch(`http://${host}:${port}/healthz`, { signal: AbortSignal.timeout(2_000) });
    await response.body?.cancel();
    return true;
  } catch {
    return false;
  }
}

// On Linux all of 127.0.0.0/8 is local, so two of its addresses stand for an outer and an inner network.
test('the ops port is not reachable at HOST when OPS_HOST differs', async () => {
  await using started = await stack(routes, { HOST: '127.0.0.2', OPS_HOST: '127.0.0.1' });
  const { port, opsPort } = started.gateway;
  expect(await responds('127.0.0.2', port)).toBe(true);
  expect(await responds('127.0.0.1', opsPort)).toBe(true);
  expect(await responds('127.0.0.2', opsPort)).toBe(false);
});

test('the ops port listens at HOST when OPS_HOST is not set', async () => {
  await using started = await stack(routes, { HOST: '127.0.0.2' });
  expect(await responds('127.0.0.2', started.gateway.opsPort)).toBe(true);
});
