/**
 * What a killed gateway takes with it: verdicts given and never counted. The gateway is killed (SIGKILL) in the middle
 * of steady traffic, several times. `node bench/jobs/killed-gateway.mjs [rounds=5]`: prints one line of JSON.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { spawnService } from '@latchkey/testing';
import { freePort, startStack, until } from './stack.mjs';

const [rounds = 5] = process.argv.slice(2).map(Number);
const stack = await startStack();
const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-bench-'));
const upstream = createServer((_req, res) => res.end('ok'));
await new Promise((resolve) => upstream.listen(0, '127.0.0.1', () => resolve(null)));
try {
  const { port: upstreamPort } = /** @type {import('node:net').AddressInfo} */ (upstream.address());
  const routes = path.join(dir, 'gateway.yaml');
  writeFileSync(
    routes,
    `routes:\n  - name: demo\n    path: /demo/*\n    upstream: http://127.0.0.1:${upstreamPort}\n    require: { scopes: { "*": [] } }\n`,
  );
  const issued = await fetch(`${stack.apiUrl}/v1/tokens`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', cookie: stack.cookie },
    body: JSON.stringify({ name: 'counted' }),
  });
  const { id, secret } = /** @type {{id: string, secret: string}} */ (await issued.json());
  const worker = await stack.worker();
  const counted = async () =>
    Number(
      (
        await stack.database.query('SELECT coalesce(sum(count), 0) AS n FROM usage_hourly WHERE token_id = $1', [id])
      )[0]?.['n'],
    );
  const lost = [];
  for (let round = 0; round < rounds; round++) {
    const [port, ops, authz] = [await freePort(), await freePort(), await freePort()];
    const gateway = await spawnService(
      path.join(import.meta.dirname, '../../apps/gateway/dist/main.js'),
      {
        PORT: String(port),
        OPS_PORT: String(ops),
        AUTHZ_PORT: String(authz),
        RPC_ADDRESS: stack.rpcAddress,
        RPC_SECRET: stack.secrets.RPC_SECRET,
        API_URL: stack.apiUrl,
        REDIS_URL: stack.redis.url,
        GATEWAY_CONFIG: routes,
        PUBLIC_URL: `http://127.0.0.1:${port}`,
        LOG_LEVEL: 'error',
      },
      { readyUrl: `http://127.0.0.1:${ops}/readyz`, readyTimeoutMs: 120_000 },
    );
    const before = await counted();
    let answered = 0;
    let running = true;
    const startedAt = performance.now();
    const caller = async () => {
      while (running) {
        const answer = await fetch(`http://127.0.0.1:${port}/demo/x`, {
          headers: { authorization: `Bearer ${secret}` },
        }).catch(() => null);
        if (!answer) continue;
        await answer.arrayBuffer().catch(() => null);
        if (answer.status === 200) answered++;
        else throw new Error(`the gateway answered ${answer.status}`);
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    };
    const callers = Array.from({ length: 4 }, caller);
    await new Promise((resolve) => setTimeout(resolve, 4_000 + round * 330));
    await gateway.kill();
    running = false;
    await Promise.all(callers);
    const perSecond = answered / ((performance.now() - startedAt) / 1000);
    let last = -1;
    await until(async () => {
      const now = await counted();
      const still = now === last;
      last = now;
      return still;
    }, 8_000);
    const missing = answered - (last - before);
    lost.push({ answered, missing, msOfTraffic: Math.round((missing / perSecond) * 1000) });
  }
  console.log(JSON.stringify({ rounds: lost, worstMs: Math.max(...lost.map((l) => l.msOfTraffic)) }));
  await worker.stop();
} finally {
  upstream.close();
  upstream.closeAllConnections();
  rmSync(dir, { recursive: true });
  await stack.stop();
}
