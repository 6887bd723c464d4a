/**
 * What the gateway costs as a proxy: requests a second and processor time a request, for
 *   bare       node:http and undici alone (peers/bare-proxy.mjs)
 *   check off  the gateway, on a public route
 *   check on   the gateway, on a route that asks for a token with a scope, answered from memory
 * Real processes: the proxy has processor 0 to itself, upstream and load generator share processor 1. The three take
 * turns in many short rounds, so that what else the machine does meets all alike; medians with lowest and highest are
 * shown. On a busy machine read the ratios by processor time: requests a second then show how busy it was.
 *
 * `node bench/proxy.mjs [--rounds 40] [--ms 300] [--connections 32]`, after `npm run build`.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { testCredentials, testRedis } from '@latchkey/testing';
import { startAuthority } from './lib/authority.mjs';
import { start, summary } from './lib/processes.mjs';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '40' },
    ms: { type: 'string', default: '300' },
    connections: { type: 'string', default: '32' },
  },
});
const rounds = Number(values.rounds);
const ms = Number(values.ms);
const connections = Number(values.connections);
const PROXY = 0;
const REST = 1;
const here = import.meta.dirname;
const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-bench-'));
const stops = [];

try {
  const redis = await testRedis();
  stops.push(() => redis.close());
  const authority = await startAuthority();
  stops.push(() => authority.close());
  const secret = authority.issue(['demo:read']);

  const upstream = await start({ args: [path.join(here, 'peers/upstream.mjs')], processor: REST });
  stops.push(() => upstream.stop());
  const upstreamUrl = `http://127.0.0.1:${upstream.match[1]}`;
  const bare = await start({ args: [path.join(here, 'peers/bare-proxy.mjs'), upstreamUrl], processor: PROXY });
  stops.push(() => bare.stop());

  const routes = path.join(dir, 'gateway.yaml');
  writeFileSync(
    routes,
    `routes:
  - { name: off, path: /off/*, upstream: "${upstreamUrl}", public: true }
  - { name: on, path: /on/*, upstream: "${upstreamUrl}", require: { scopes: { GET: [demo:read] } } }
`,
  );
  const gateway = await start({
    args: [...(process.env.GATEWAY_FLAGS?.split(' ') ?? []), path.join(here, '../apps/gateway/dist/main.js')],
    processor: PROXY,
    env: {
      PORT: '0',
      OPS_PORT: '0',
      AUTHZ_PORT: '0',
      RPC_ADDRESS: authority.address,
      ...testCredentials().gateway,
      REDIS_URL: redis.url,
      GATEWAY_CONFIG: routes,
      CONSOLE_DIR: path.join(dir, 'console'),
    },
    ready: /"url":"http:\/\/127\.0\.0\.1:(\d+)"/,
  });
  stops.push(() => gateway.stop());
  const load = await start({ args: [path.join(here, 'peers/load.mjs')], processor: REST, ready: null });
  stops.push(() => load.stop());

  // The same bytes for all but the path: what differs is what the proxy does with them.
  const request = (at) =>
    `GET ${at} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer ${secret}\r\nUser-Agent: bench/1\r\nAccept: application/json\r\n\r\n`;
  const variants = [
    { name: 'bare', proxy: bare, port: Number(bare.match[1]), request: request('/bare/items/12') },
    { name: 'check off', proxy: gateway, port: Number(gateway.match[1]), request: request('/off/items/123') },
    { name: 'check on', proxy: gateway, port: Number(gateway.match[1]), request: request('/on/items/1234') },
  ];
  const measure = async ({ proxy, port, request: bytes }, forMs) => {
    const before = proxy.processorSeconds();
    const result = JSON.parse(await load.ask(JSON.stringify({ port, request: bytes, connections, ms: forMs })));
    if (result.errors > 0) throw new Error(`${result.errors} of ${result.count} responses were not 200`);
    const seconds = proxy.processorSeconds() - before;
    return {
      perSecond: (result.count * 1000) / result.ms,
      microseconds: (seconds * 1e6) / result.count,
      busy: (seconds * 1000) / result.ms,
      p50: result.p50,
      p99: result.p99,
    };
  };

  for (const variant of variants) await measure(variant, 2_000);
  const results = new Map(variants.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    // Each round begins with another, so that no place in the order is an advantage.
    const order = variants.map((_, i) => variants[(i + round) % variants.length]);
    for (const variant of order) results.get(variant.name).push(await measure(variant, ms));
  }

  const of = (name, what) => summary(results.get(name).map((result) => result[what]));
  console.log(
    `proxy: ${rounds} rounds of ${ms} ms, ${connections} connections, proxy on processor ${PROXY}, rest on ${REST}`,
  );
  console.log('            requests/s                 CPU µs/request        p50 ms  p99 ms  processor busy');
  for (const { name } of variants) {
    const [rate, cpu, p50, p99, busy] = ['perSecond', 'microseconds', 'p50', 'p99', 'busy'].map((what) =>
      of(name, what),
    );
    const range = ({ median, low, high }, digits) =>
      `${median.toFixed(digits)} (${low.toFixed(digits)}–${high.toFixed(digits)})`;
    console.log(
      `${name.padEnd(10)}  ${range(rate, 0).padEnd(25)}  ${range(cpu, 1).padEnd(20)}  ${p50.median.toFixed(2).padEnd(6)}  ${p99.median.toFixed(2).padEnd(6)}  ${(busy.median * 100).toFixed(0)} %`,
    );
  }
  const ratios = (a, b, what) =>
    summary(results.get(a).map((result, round) => result[what] / results.get(b)[round][what]));
  for (const [a, b, goal] of [
    ['check on', 'check off', 0.95],
    ['check off', 'bare', 0.8],
  ]) {
    const rate = ratios(a, b, 'perSecond');
    const cpu = ratios(b, a, 'microseconds');
    if (rate.median < goal) process.exitCode = 1;
    console.log(
      `${a} / ${b}: ${rate.median.toFixed(3)} (${rate.low.toFixed(3)}–${rate.high.toFixed(3)}) by requests/s, ${cpu.median.toFixed(3)} by processor time; goal ${goal}`,
    );
  }
} finally {
  for (const stop of stops.reverse()) await stop();
  rmSync(dir, { recursive: true, force: true });
}
