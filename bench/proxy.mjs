/**
 * What the gateway costs as a proxy, beside nginx, HAProxy and bare proxies in Node, in one run. Real processes: the
 * proxy has one processor to itself, upstream and load generator share another. The variants take turns in short rounds,
 * so that what else the machine does meets all alike, and ratios are taken within a round. Where a proxy's processor was
 * not busy, upstream or load generator limited its requests/s: then compare processor time, which counts all processes of
 * the proxy. Before anything is measured, each variant with a check must show that it checks.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import path from 'node:path';
import { freePorts } from '@latchkey/local-stack';
import * as configurations from './lib/configurations.mjs';
import { startGateway } from './lib/gateway.mjs';
import { closedLoop, fixedRate, warmUp } from './lib/generators.mjs';
import { options } from './lib/options.mjs';
import { barsSvg, machine, markdownTable, textTable } from './lib/output.mjs';
import { processors } from './lib/processes.mjs';
import { findProgram, luaOf, nginxProblem } from './lib/programs.mjs';
import { servers } from './lib/servers.mjs';
import { pairedRatios, spread, summary } from './lib/statistics.mjs';

const given = options(
  'proxy',
  'The gateway as a proxy beside nginx, HAProxy, nginx with the check in Lua, and bare proxies in Node.',
  {
    quick: [false, 'two minutes in all'],
    rounds: [0, '0: 20, with --quick 8'],
    seconds: [0, 'of each round; 0: 2, with --quick 1'],
    connections: [32, 'open at once'],
    processes: [0, 'also a gateway of so many processes on the same processor; 0: none'],
    markdown: [false, 'print Markdown'],
    out: ['', 'a folder for proxy.md and proxy.svg'],
  },
);
const rounds = given.rounds || (given.quick ? 8 : 20);
const seconds = given.seconds || (given.quick ? 1 : 2);
const { connections } = given;
/** Below this the proxy's processor did not limit its requests/s. */
const BUSY = 0.9;
/** Load average from which other programs are part of the figures. */
const BUSY_BEFORE = 1;
const busyBefore = /** @type {number} */ (loadavg()[0]);
const SCOPE = 'demo:read';
const WARM_UP = given.quick ? { requests: 20_000, seconds: 4 } : { requests: 60_000, seconds: 10 };
/** A generator that is later than this measures itself. */
const LATE_MS = 1;
const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-bench-'));
const on = processors();
/** @type {(() => unknown)[]} */
const stops = [];
const { startServer, writeNginx, startNginx, startPeer } = servers(dir, stops);
const say = (/** @type {string} */ line) => console.error(`  ${line}`);
/** @typedef {import('./lib/generators.mjs').Target} Target */
/** @typedef {{ name: string, process: import('./lib/processes.mjs').Started, target: Target, checks: boolean, own?: boolean }} Variant */
/** Why a peer has no figures, by its name, in the order of the table. @type {Map<string, string>} */
const notHad = new Map();
/** @type {Variant[]} */
const variants = [];

try {
  const [nginx, haproxy, wrk] = [
    await findProgram('nginx', say),
    await findProgram('haproxy', say),
    await findProgram('wrk', say),
  ];
  const [upstreamPort, plainPort, haproxyPort, luaPort] = /** @type {[number, number, number, number]} */ (
    await freePorts(4)
  );

  const upstream = await startUpstream();
  const gatewayOf = {
    dir,
    processor: on.proxy,
    stops,
    routes: `routes:
  - { name: off, path: /off/*, upstream: "http://127.0.0.1:${upstream.port}", public: true }
  - { name: on, path: /on/*, upstream: "http://127.0.0.1:${upstream.port}", require: { scopes: { GET: [${SCOPE}] } } }
`,
  };
  const gateway = await startGateway(gatewayOf);
  const token = { ...gateway.authority.issue([SCOPE]), scopes: [SCOPE] };
  const other = { ...gateway.authority.issue(['demo:write']), scopes: ['demo:write'] };
  const tokens = [token, other];
  const headersWith = (/** @type {string} */ secret) => ({
    Host: 'bench',
    Authorization: `Bearer ${secret}`,
    'User-Agent': 'bench/1',
    Accept: 'application/json',
  });
  /** The same bytes for all but the path. @param {Omit<Variant, 'target'>} variant @param {number} port @param {string} at */
  const add = (variant, port, at) =>
    variants.push({ ...variant, target: { port, path: at, headers: headersWith(token.secret) } });

  if ('notHad' in nginx) {
    for (const name of ['nginx', 'nginx + Lua, check']) notHad.set(name, nginx.notHad);
  } else {
    const file = writeNginx('plain', configurations.nginxPlain(plainPort, upstream.port));
    const plain = await startNginx(nginx, file, on.proxy, plainPort);
    add({ name: 'nginx', process: plain, checks: false }, plainPort, '/ngx/items/123');
  }
  if ('notHad' in haproxy) notHad.set('HAProxy, check', haproxy.notHad);
  else {
    const [file, map] = [path.join(dir, 'haproxy.cfg'), path.join(dir, 'haproxy.map')];
    writeFileSync(map, configurations.tokenMap(tokens));
    writeFileSync(file, configurations.haproxy(haproxyPort, upstream.port, { tokens: map, scope: SCOPE }));
    const process = await startServer(haproxy.command, ['-db', '-f', file], on.proxy, haproxyPort);
    add({ name: 'HAProxy, check', process, checks: true }, haproxyPort, '/hap/items/123');
  }
  if (!('notHad' in nginx)) {
    const list = path.join(dir, 'tokens');
    writeFileSync(list, configurations.tokenLines(tokens));
    const { modules, packagePath } = luaOf(nginx);
    const http = configurations.nginxLua(luaPort, upstream.port, { packagePath, tokens: list, scope: SCOPE });
    const file = writeNginx('lua', http, modules);
    const problem = await nginxProblem(nginx, file);
    if (problem) notHad.set('nginx + Lua, check', problem);
    else {
      const process = await startNginx(nginx, file, on.proxy, luaPort);
      add({ name: 'nginx + Lua, check', process, checks: true }, luaPort, '/lua/items/123');
    }
  }
  const bareHttp = await startPeer(on.proxy, 'bare-proxy.mjs', `http://127.0.0.1:${upstream.port}`);
  add({ name: 'bare node:http + undici', process: bareHttp.process, checks: false }, bareHttp.port, '/und/items/123');
  const bareNet = await startPeer(on.proxy, 'bare-net-proxy.mjs', String(upstream.port), JSON.stringify(tokens));
  add({ name: 'bare node:net, check', process: bareNet.process, checks: true }, bareNet.port, '/net/items/123');
  const own = { process: gateway.process, own: true };
  add({ ...own, name: 'Latchkey, check off', checks: false }, gateway.port, '/off/items/123');
  add({ ...own, name: 'Latchkey, check on', checks: true }, gateway.port, '/on/items/1234');

  const severalName = `Latchkey, check on, ${given.processes} processes`;
  if (given.processes > 0) {
    const several = await startGateway({ ...gatewayOf, env: { GATEWAY_PROCESSES: String(given.processes) } });
    const { secret } = several.authority.issue([SCOPE]);
    const target = { port: several.port, path: '/on/items/1234', headers: headersWith(secret) };
    variants.push({ name: severalName, process: several.process, own: true, checks: false, target });
  }

  for (const { name, target, checks } of variants) await prove(name, target, checks, headersWith(other.secret));

  const load = await closedLoop(wrk, on.rest);
  stops.push(() => load.stop());
  for (const { target } of variants) await warmUp((s) => load.run(target, connections, s), WARM_UP);
  say(`measuring ${variants.length} variants, ${rounds} rounds of ${seconds} s each`);
  /** @type {Map<string, Awaited<ReturnType<typeof measure>>[]>} */
  const results = new Map(variants.map(({ name }) => [name, []]));
  for (let round = 0; round < rounds; round++) {
    // Each round begins with another, so that no place in the order is an advantage.
    const order = variants.map((_, i) => /** @type {Variant} */ (variants[(i + round) % variants.length]));
    for (const variant of order) results.get(variant.name)?.push(await measure(variant, load));
  }
  const of = (/** @type {string} */ name, /** @type {'perSecond' | 'microseconds' | 'busy' | 'p50' | 'p99'} */ what) =>
    (results.get(name) ?? []).map((result) => result[what]);

  const columns = ['proxy', 'processor µs/request', 'requests/s', 'p50 ms', 'p99 ms', 'processor busy'];
  let isLimited = false;
  const rows = variants.map(({ name }) => {
    const busy = summary(of(name, 'busy')).median;
    if (busy < BUSY) isLimited = true;
    return [
      name,
      spread(summary(of(name, 'microseconds')), 1),
      spread(summary(of(name, 'perSecond')), 0),
      summary(of(name, 'p50')).median.toFixed(2),
      summary(of(name, 'p99')).median.toFixed(2),
      `${(busy * 100).toFixed(0)} %${busy < BUSY ? ' †' : ''}`,
    ];
  });
  for (const [name, reason] of notHad) rows.push([name, `not had: ${reason}`]);
  const notes = [
    `${rounds} rounds of ${seconds} s in turn, ${connections} connections; proxy on processor ${on.proxy}, upstream (${upstream.name}) and load (${load.name}) on ${on.rest}; median (lowest–highest)`,
  ];
  if (isLimited)
    notes.push(
      '† not busy: upstream, load generator or other programs limited its requests/s; compare the processor time',
    );
  if ('notHad' in wrk) notes.push(`wrk was not had: ${wrk.notHad}`);
  if (busyBefore > BUSY_BEFORE)
    notes.push(
      `the machine was busy before the start (load average ${busyBefore.toFixed(1)}): do not rely on these figures`,
    );
  if (on.note) notes.push(on.note);

  const ratios = [
    compare('nginx + Lua, check', 'Latchkey, check on', 'microseconds', 1),
    compare('Latchkey, check on', 'Latchkey, check off', 'perSecond', 0.95),
    compare('bare node:net, check', 'Latchkey, check on', 'microseconds'),
    compare('bare node:http + undici', 'Latchkey, check off', 'microseconds', 0.8),
    // As fast on each of their processors: so many times as much in all.
    ...(given.processes > 0 ? [compare('Latchkey, check on', severalName, 'microseconds', 0.9)] : []),
  ];
  const half = await atHalfLoad();
  print();

  /** The ratio in each round; by processor time that of the gateway comes last: above 1 it needs less. */
  function compare(
    /** @type {string} */ a,
    /** @type {string} */ b,
    /** @type {'perSecond' | 'microseconds'} */ what,
    /** @type {number | undefined} */ goal = undefined,
  ) {
    const byTime = what === 'microseconds';
    const title = byTime ? `${b} beside ${a}, by processor time` : `${a} / ${b}, by requests/s`;
    for (const name of [a, b]) if (!results.has(name)) return `${title}: not had (${name})`;
    const ratio = pairedRatios(of(a, what), of(b, what));
    const isMissed = goal !== undefined && !(ratio.median >= goal);
    if (isMissed) process.exitCode = 1;
    const target = goal === undefined ? '' : `; goal ≥ ${goal.toFixed(2)}×${isMissed ? ', MISSED' : ''}`;
    return `${title}: ${spread(ratio, 2)}×${byTime ? ' as fast' : ''}${target}`;
  }

  /** p99 of ours and of nginx at a rate that is half of what the slower can do. */
  async function atHalfLoad() {
    const names = ['nginx', 'Latchkey, check on'].filter((name) => results.has(name));
    const rate = Math.floor(Math.min(...names.map((name) => summary(of(name, 'perSecond')).median)) / 2);
    const generator = await fixedRate(on.rest);
    stops.push(() => generator.stop());
    const [times, length] = given.quick ? [3, 2] : [7, 4];
    say(`measuring at ${rate} requests/s, ${times} rounds of ${length} s`);
    const chosen = variants.filter(({ name }) => names.includes(name));
    for (const { target } of chosen) await generator.run(target, connections, 1, rate);
    /** @type {Map<string, import('./lib/generators.mjs').Result[]>} */
    const taken = new Map(names.map((name) => [name, []]));
    for (let round = 0; round < times; round++) {
      for (const { name, target } of round % 2 ? chosen.toReversed() : chosen)
        taken.get(name)?.push(await generator.run(target, connections, length, rate));
    }
    const lines = names.map((name) => {
      const list = taken.get(name) ?? [];
      const late = summary(list.map((result) => result.late ?? 0)).median;
      return {
        cells: [
          name,
          spread(summary(list.map(({ p50 }) => p50)), 2),
          spread(summary(list.map(({ p99 }) => p99)), 2),
          late.toFixed(2),
        ],
        late,
      };
    });
    const note = lines.some(({ late }) => late > LATE_MS)
      ? `the load generator itself was late by more than ${LATE_MS} ms: the machine is busy, and these latencies are its own`
      : '';
    return {
      title: `At ${rate} requests/s, half of what the slower of the two can do, latency from the intended time of sending`,
      columns: ['proxy', 'p50 ms', 'p99 ms', 'generator late, p99 ms'],
      rows: lines.map(({ cells }) => cells),
      note,
    };
  }

  function print() {
    const versions = Object.fromEntries(
      Object.entries({ nginx, HAProxy: haproxy, wrk }).flatMap(([name, found]) =>
        'notHad' in found ? [] : [[name, found.version]],
      ),
    );
    const about = machine(versions);
    const halfNotes = half.note ? [half.note] : [];
    const markdown = [
      ['### Proxies', '', about, '', markdownTable(columns, rows), ''],
      [...notes, ...ratios].map((line) => `- ${line}`),
      ['', half.title, '', markdownTable(half.columns, half.rows), '', ...halfNotes],
    ]
      .flat()
      .join('\n');
    const text = [
      [about, textTable(columns, rows), ...notes, '', ...ratios, '', `${half.title}:`],
      [textTable(half.columns, half.rows), ...halfNotes],
    ].flat();
    console.log(given.markdown ? markdown : text.join('\n'));
    if (!given.out) return;
    mkdirSync(given.out, { recursive: true });
    writeFileSync(path.join(given.out, 'proxy.md'), `${markdown.trimEnd()}\n`);
    const picture = barsSvg({
      title: 'Processor time of a proxied request',
      subtitle: 'µs on one processor, all processes of the proxy; median with lowest and highest; shorter is better',
      note: about,
      unit: 'µs',
      digits: 1,
      bars: variants.map(({ name, own }) => ({ name, ...summary(of(name, 'microseconds')), own: own === true })),
    });
    writeFileSync(path.join(given.out, 'proxy.svg'), picture);
    say(`written to ${path.join(given.out, 'proxy.md')} and proxy.svg`);
  }

  async function startUpstream() {
    if ('notHad' in nginx) return { name: 'Node', port: (await startPeer(on.rest, 'upstream.mjs')).port };
    const file = writeNginx('upstream', configurations.nginxUpstream(upstreamPort));
    await startNginx(nginx, file, on.rest, upstreamPort);
    return { name: 'nginx', port: upstreamPort };
  }
} finally {
  for (const stop of stops.reverse()) await stop();
  rmSync(dir, { recursive: true, force: true });
}

/** @param {Variant} variant @param {Awaited<ReturnType<typeof closedLoop>>} load */
async function measure({ process: proxy, target }, load) {
  const before = proxy.processorSeconds();
  const { count, ms, p50, p99 } = await load.run(target, connections, seconds);
  const used = proxy.processorSeconds() - before;
  return {
    perSecond: (count * 1_000) / ms,
    microseconds: (used * 1e6) / count,
    busy: (used * 1_000) / ms,
    p50,
    p99,
  };
}

/**
 * That a variant does the work that its figures stand for: with a check, it refuses what it must, and tells the upstream
 * who calls, without the token.
 * @param {string} name
 * @param {Target} target
 * @param {boolean} checks
 * @param {Record<string, string>} otherHeaders with a token without the scope
 */
async function prove(name, target, checks, otherHeaders) {
  const ask = async (/** @type {Record<string, string>} */ headers, at = '/echo') => {
    const { Host: _host, ...sent } = headers;
    const url = `http://127.0.0.1:${target.port}${target.path.replace(/\/items\/\d+$/, at)}`;
    const response = await fetch(url, { headers: sent });
    return { status: response.status, body: await response.text() };
  };
  const fails = (/** @type {string} */ why) => {
    throw new Error(`${name} ${why}`);
  };
  const right = await ask(target.headers);
  if (right.status !== 200) fails(`returned ${right.status} for a valid token: ${right.body}`);
  if (!checks) return;
  const echo = JSON.parse(right.body);
  if (echo.authorization !== '') fails('passes the token on');
  if (echo.scopes !== SCOPE) fails(`tells the upstream the scopes ${JSON.stringify(echo.scopes)}`);
  for (const what of ['tokenId', 'owner', 'requestId', 'forwardedFor'])
    if (!echo[what]) fails(`does not tell the upstream ${what}`);
  const forged = { ...target.headers, Authorization: `${target.headers['Authorization']}x` };
  const { Authorization: _none, ...without } = target.headers;
  for (const [what, headers, status] of /** @type {[string, Record<string, string>, number][]} */ ([
    ['a wrong token', forged, 401],
    ['no token', without, 401],
    ['a token without the scope', otherHeaders, 403],
  ])) {
    const { status: returned } = await ask(headers);
    if (returned !== status) fails(`returned ${returned} for ${what}, not ${status}`);
  }
}
