import { expect, test } from '@jest/globals';
import { stack } from './stack.js';

const routes = (upstream: string) => `routes:\n  - { name: all, path: /all, upstream: "${upstream}", require: {} }\n`;

/** Whether anything answers there at all. */
async function answers(host: string, port: number): Promise<boolean> {
  try {
    const answer = await fetch(`http://${host}:${port}/healthz`, { signal: AbortSignal.timeout(2_000) });
    await answer.body?.cancel();
    return true;
  } catch {
    return false;
  }
}

// Linux answers on all of 127.0.0.0/8, so two of its addresses stand for an outer and an inner network.
test('who reaches the public door does not reach the ops port when OPS_HOST says otherwise', async () => {
  await using world = await stack(routes, { HOST: '127.0.0.2', OPS_HOST: '127.0.0.1' });
  const { port, opsPort } = world.gateway;
  expect(await answers('127.0.0.2', port)).toBe(true);
  expect(await answers('127.0.0.1', opsPort)).toBe(true);
  expect(await answers('127.0.0.2', opsPort)).toBe(false);
});

test('the ops port is where the public door is when OPS_HOST says nothing', async () => {
  await using world = await stack(routes, { HOST: '127.0.0.2' });
  expect(await answers('127.0.0.2', world.gateway.opsPort)).toBe(true);
});
