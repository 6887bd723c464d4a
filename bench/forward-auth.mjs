/**
 * What it costs to ask the gateway instead of passing through it, beside servers that check nothing: /forward-auth for
 * nginx's auth_request beside node:http that returns 204, and Envoy's ext_authz and the token-service's Verify
 * over gRPC beside @grpc/grpc-js that answers the same message. The server that is asked has a processor to itself; nginx and load generator share another.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { loadSync } from '@grpc/proto-loader';
import { EXT_AUTHZ_PACKAGE, EXT_AUTHZ_PROTO_FILE, PROTO_FILE, PROTO_PACKAGE } from '@latchkey/contracts';
import { freePorts } from '@latchkey/local-stack';
import { firstParty, PROTO_OPTIONS } from '@latchkey/runtime';
import { startCluster } from '@latchkey/testing';
import { issue } from './lib/cluster.mjs';
import { nginxAuthRequest } from './lib/configurations.mjs';
import { startGateway } from './lib/gateway.mjs';
import { closedLoop, warmUp } from './lib/generators.mjs';
import { options } from './lib/options.mjs';
import { machine, textTable } from './lib/output.mjs';
import { pin, processorSecondsOf, processors, start } from './lib/processes.mjs';
import { findProgram } from './lib/programs.mjs';
import { servers } from './lib/servers.mjs';
import { pairedRatios, spread, summary } from './lib/statistics.mjs';

const { rounds, seconds, connections, only } = options(
  'forward-auth',
  '/forward-auth for nginx auth_request, ext_authz for Envoy, and Verify, beside servers that check nothing.',
  {
    rounds: [12, 'rounds'],
    seconds: [2, 'of each round'],
    connections: [32, 'open at once; calls at once over gRPC'],
    only: ['', 'auth_request, ext_authz or Verify; default: all'],
  },
);
const GRPC_CONNECTIONS = 4;
const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-bench-'));
const on = processors();
/** @type {(() => unknown)[]} */
const stops = [];
const { writeNginx, startNginx, startPeer } = servers(dir, stops);
const say = (/** @type {string} */ line) => console.error(`  ${line}`);
/** @typedef {{ processorSeconds: () => number }} Measured */
/** @typedef {{ name: string, process: Measured, run: (seconds: number) => Promise<import('./lib/generators.mjs').Result> }} Variant */

try {
  const nginx = await findProgram('nginx', say);
  const wrk = await findProgram('wrk', say);
  const gateway = await startGateway({
    dir,
    processor: on.proxy,
    stops,
    routes: `routes:
  - { name: on, path: /on/*, upstream: "http://127.0.0.1:1", require: { scopes: { GET: [demo:read] } } }
`,
  });
  const { secret } = gateway.authority.issue(['demo:read']);
  const authorization = `Bearer ${secret}`;
  console.log(machine({ ...('notHad' in nginx ? {} : { nginx: nginx.version }) }));

  if (only && only !== 'auth_request') console.log('auth_request: left out');
  else if ('notHad' in nginx) console.log(`auth_request: not had: ${nginx.notHad}`);
  else {
    const bare = await startPeer(on.proxy, 'bare-auth.mjs');
    const [bareFront, ownFront] = /** @type {[number, number]} */ (await freePorts(2));
    const http = [
      nginxAuthRequest('bare', bareFront, bare.port, '/'),
      nginxAuthRequest('latchkey', ownFront, gateway.opsPort, '/forward-auth'),
    ].join('');
    await startNginx(nginx, writeNginx('front', http), on.rest, ownFront);
    const target = (/** @type {number} */ port) => ({
      port,
      path: '/on/items/123',
      headers: { Host: 'bench', Authorization: authorization, 'User-Agent': 'bench/1', Accept: 'application/json' },
    });
    // That nginx asks, and passes the answer on.
    const refused = await fetch(`http://127.0.0.1:${ownFront}/on/items/123`, {
      headers: { authorization: `${authorization}x` },
    });
    if (refused.status !== 401) throw new Error(`nginx returned ${refused.status} for a wrong token, not 401`);
    const load = await closedLoop(wrk, on.rest);
    stops.push(() => load.stop());
    await compare(
      `auth_request of nginx, load by ${load.name}`,
      { name: 'bare node:http, 204', process: bare.process, run: (s) => load.run(target(bareFront), connections, s) },
      { name: 'Latchkey', process: gateway.process, run: (s) => load.run(target(ownFront), connections, s) },
      1,
    );
  }

  const load = await start({
    args: [path.join(import.meta.dirname, 'peers/grpc-load.mjs')],
    processor: on.rest,
    ready: null,
  });
  stops.push(() => load.stop());
  /** Beside a server that answers each call with what ours answered the first one. */
  const compareCalls = async (
    /** @type {{ title: string, file: string, service: string, method: string, port: number, server: Measured, headers?: Record<string, string>, accepted: object, refused: object, allows: (answer: any) => boolean }} */ calls,
  ) => {
    const definition = /** @type {any} */ (loadSync(calls.file, PROTO_OPTIONS)[calls.service])[calls.method];
    const run = async (/** @type {number} */ port, /** @type {number} */ s, /** @type {object} */ request) => {
      const job = {
        port,
        path: definition.path,
        message: definition.requestSerialize(request).toString('base64'),
        headers: calls.headers,
        connections: GRPC_CONNECTIONS,
        streams: Math.max(1, Math.floor(connections / GRPC_CONNECTIONS)),
        ms: s * 1_000,
      };
      const result = JSON.parse(await load.ask(JSON.stringify(job)));
      if (result.errors > 0) throw new Error(`${result.errors} of ${result.count} calls of ${calls.method} failed`);
      return result;
    };
    const { answer } = await run(calls.port, 0.05, calls.accepted);
    const read = (/** @type {string} */ text) => definition.responseDeserialize(Buffer.from(text, 'base64'));
    if (!calls.allows(read(answer))) throw new Error(`${calls.method} refuses: ${JSON.stringify(read(answer))}`);
    const other = read((await run(calls.port, 0.05, calls.refused)).answer);
    if (calls.allows(other)) throw new Error(`${calls.method} does not check: ${JSON.stringify(other)}`);
    const bare = await startPeer(on.proxy, 'bare-grpc.mjs', calls.file, calls.service, calls.method, answer);
    await compare(
      calls.title,
      { name: 'bare @grpc/grpc-js', process: bare.process, run: (s) => run(bare.port, s, calls.accepted) },
      { name: 'Latchkey', process: calls.server, run: (s) => run(calls.port, s, calls.accepted) },
      0.8,
    );
  };
  const checkRequest = (/** @type {string} */ text) => ({
    attributes: {
      source: { address: { socketAddress: { address: '127.0.0.1' } } },
      request: {
        http: {
          method: 'GET',
          path: '/on/items/123',
          headers: { authorization: text, 'user-agent': 'bench/1', accept: 'application/json' },
        },
      },
    },
  });
  if (!only || only === 'ext_authz')
    await compareCalls({
      title: 'ext_authz over gRPC, the gateway',
      file: EXT_AUTHZ_PROTO_FILE,
      service: `${EXT_AUTHZ_PACKAGE}.Authorization`,
      method: 'Check',
      port: gateway.authzPort,
      server: gateway.process,
      accepted: checkRequest(authorization),
      refused: checkRequest(`${authorization}x`),
      allows: ({ status }) => status.code === 0,
    });

  if (!only || only === 'Verify') {
    const cluster = await startCluster({ gateways: 0, throughLink: false });
    stops.push(() => cluster[Symbol.asyncDispose]());
    const token = await issue(cluster, 'bench');
    const { pid } = /** @type {import('@latchkey/testing').Member} */ (cluster.tokenServices[0]).process;
    pin(pid, on.proxy);
    await compareCalls({
      title: 'Verify over gRPC, the token-service',
      file: PROTO_FILE,
      service: `${PROTO_PACKAGE}.Tokens`,
      method: 'Verify',
      port: Number(cluster.rpcAddresses[0]?.split(':')[1]),
      server: { processorSeconds: () => processorSecondsOf(pid) },
      headers: { authorization: firstParty(cluster.gatewayRpcSecret) },
      accepted: { token: token.secret, scopes: [], ip: '127.0.0.1', route: 'bench', userAgent: 'bench/1' },
      refused: { token: `${token.secret}x`, scopes: [], ip: '127.0.0.1', route: 'bench', userAgent: 'bench/1' },
      allows: ({ allowed }) => allowed,
    });
  }
} finally {
  for (const stop of stops.reverse()) await stop();
  rmSync(dir, { recursive: true, force: true });
}

/**
 * In turns; prints both, and the ratio by processor time beside the goal.
 * @param {string} title
 * @param {Variant} bare
 * @param {Variant} own
 * @param {number} goal
 */
async function compare(title, bare, own, goal) {
  const variants = [bare, own];
  for (const { run } of variants) await warmUp(run, { requests: 40_000, seconds: 10 });
  /** @type {Map<string, { perSecond: number, microseconds: number, busy: number, p99: number }[]>} */
  const results = new Map(variants.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    for (const { name, process, run } of round % 2 ? variants.toReversed() : variants) {
      const before = process.processorSeconds();
      const { count, ms, p99 } = await run(seconds);
      const used = process.processorSeconds() - before;
      const figures = {
        perSecond: (count * 1_000) / ms,
        microseconds: (used * 1e6) / count,
        busy: (used * 1_000) / ms,
        p99,
      };
      results.get(name)?.push(figures);
    }
  }
  const of = (/** @type {string} */ name, /** @type {'perSecond' | 'microseconds' | 'busy' | 'p99'} */ what) =>
    (results.get(name) ?? []).map((figures) => figures[what]);
  console.log(`\n${title}; ${rounds} rounds of ${seconds} s in turn, ${connections} requests at once`);
  const columns = ['server', 'processor µs/request', 'requests/s', 'p99 ms', 'processor busy'];
  const rows = variants.map(({ name }) => [
    name,
    spread(summary(of(name, 'microseconds')), 1),
    spread(summary(of(name, 'perSecond')), 0),
    summary(of(name, 'p99')).median.toFixed(2),
    `${(summary(of(name, 'busy')).median * 100).toFixed(0)} %`,
  ]);
  console.log(textTable(columns, rows));
  const ratio = pairedRatios(of(bare.name, 'microseconds'), of(own.name, 'microseconds'));
  const isMet = ratio.median >= goal;
  if (!isMet) process.exitCode = 1;
  console.log(
    `by processor time: ${spread(ratio, 2)}× as fast; goal ≥ ${goal.toFixed(2)}×${isMet ? '' : ', MISSED'}; by requests/s: ${spread(pairedRatios(of(own.name, 'perSecond'), of(bare.name, 'perSecond')), 2)}×`,
  );
}
