/**
 * What it costs to ask the gateway instead of passing through it, beside servers that check nothing: /forward-auth for
 * nginx's auth_request beside node:http that returns 204, and Envoy's ext_authz over gRPC beside @grpc/grpc-js that
 * answers the same message. The server that is asked has a processor to itself; nginx and load generator share another.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { loadSync } from '@grpc/proto-loader';
import { EXT_AUTHZ_PACKAGE, EXT_AUTHZ_PROTO_FILE } from '@latchkey/contracts';
import { freePorts } from '@latchkey/local-stack';
import { PROTO_OPTIONS } from '@latchkey/runtime';
import { nginxAuthRequest } from './lib/configurations.mjs';
import { startGateway } from './lib/gateway.mjs';
import { closedLoop } from './lib/generators.mjs';
import { options } from './lib/options.mjs';
import { machine, textTable } from './lib/output.mjs';
import { processors, start } from './lib/processes.mjs';
import { findProgram } from './lib/programs.mjs';
import { servers } from './lib/servers.mjs';
import { pairedRatios, spread, summary } from './lib/statistics.mjs';

const { rounds, seconds, connections } = options(
  'forward-auth',
  '/forward-auth for nginx auth_request and ext_authz for Envoy, beside servers that check nothing.',
  {
    rounds: [12, 'rounds'],
    seconds: [2, 'of each round'],
    connections: [32, 'open at once; calls at once over gRPC'],
  },
);
const GRPC_CONNECTIONS = 4;
const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-bench-'));
const on = processors();
/** @type {(() => unknown)[]} */
const stops = [];
const { writeNginx, startNginx, startPeer } = servers(dir, stops);
const say = (/** @type {string} */ line) => console.error(`  ${line}`);
/** @typedef {{ name: string, process: import('./lib/processes.mjs').Started, run: (seconds: number) => Promise<import('./lib/generators.mjs').Result> }} Variant */

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

  if ('notHad' in nginx) console.log(`auth_request: not had: ${nginx.notHad}`);
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

  const method = loadSync(EXT_AUTHZ_PROTO_FILE, PROTO_OPTIONS)[`${EXT_AUTHZ_PACKAGE}.Authorization`];
  const { path: at, requestSerialize, responseDeserialize } = /** @type {any} */ (method).Check;
  const messageWith = (/** @type {string} */ text) =>
    requestSerialize({
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
    }).toString('base64');
  const bare = await startPeer(on.proxy, 'bare-authz.mjs');
  const load = await start({
    args: [path.join(import.meta.dirname, 'peers/grpc-load.mjs')],
    processor: on.rest,
    ready: null,
  });
  stops.push(() => load.stop());
  const runAt = async (/** @type {number} */ port, /** @type {number} */ s, message = messageWith(authorization)) => {
    const streams = Math.max(1, Math.floor(connections / GRPC_CONNECTIONS));
    const job = { port, path: at, message, connections: GRPC_CONNECTIONS, streams, ms: s * 1_000 };
    const result = JSON.parse(await load.ask(JSON.stringify(job)));
    if (result.errors > 0) throw new Error(`${result.errors} of ${result.count} calls failed`);
    return { ...result, answer: responseDeserialize(Buffer.from(result.answer, 'base64')) };
  };
  const answers = [
    await runAt(gateway.authzPort, 0.05),
    await runAt(bare.port, 0.05),
    await runAt(gateway.authzPort, 0.05, messageWith(`${authorization}x`)),
  ].map(({ answer }) => answer);
  if (answers[0].status.code !== 0 || answers[2].status.code === 0)
    throw new Error(`ext_authz does not check: ${JSON.stringify(answers)}`);
  const headersOf = (/** @type {any} */ answer) =>
    answer.okResponse.headers.map((/** @type {any} */ { header }) => header.key).join();
  if (headersOf(answers[0]) !== headersOf(answers[1]))
    throw new Error(`the bare server answers other headers: ${JSON.stringify(answers)}`);
  await compare(
    'ext_authz over gRPC',
    { name: 'bare @grpc/grpc-js', process: bare.process, run: (s) => runAt(bare.port, s) },
    { name: 'Latchkey', process: gateway.process, run: (s) => runAt(gateway.authzPort, s) },
    0.8,
  );
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
  for (const { run } of variants) await run(3);
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
