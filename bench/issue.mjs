/**
 * Tokens issued a second over HTTP, beside `pg` alone inserting the same rows in the same transactions (the token and its
 * audit event; BEGIN, two inserts, COMMIT). The real token-service with PostgreSQL and Redis; both have as many
 * connections and as many callers at once, on the same database, and take turns in rounds. PostgreSQL flushes nothing to
 * disk, so that no wait for a disk hides what the service itself costs.
 */
import path from 'node:path';
import { startStack } from './jobs/stack.mjs';
import { options } from './lib/options.mjs';
import { start } from './lib/processes.mjs';
import { summary } from './lib/statistics.mjs';
import { report } from './lib.mjs';

const { rounds, ms, callers } = options(
  'issue',
  'Tokens issued a second over HTTP beside raw inserts of the same rows in the same transactions.',
  {
    rounds: [9, 'rounds of each, in turn'],
    ms: [3_000, 'milliseconds a round'],
    callers: [16, 'callers at once'],
  },
);
/** Connections of the token-service for changes, three quarters of the pool's 20, and of the peer. */
const CONNECTIONS = 15;
const GOAL = 0.5;
const peers = path.join(import.meta.dirname, 'peers');

const stack = await startStack();
const stops = [() => stack.stop()];
try {
  const load = await start({ args: [path.join(peers, 'load.mjs')], ready: null });
  stops.push(() => load.stop());

  const body = JSON.stringify({
    name: 'nightly export of billing',
    scopes: ['tokens:read'],
    expiresInSeconds: 86_400,
  });
  const { port } = new URL(stack.apiUrl);
  // Each caller is a person of their own; beside them, all at once by one person.
  const cookies = await Promise.all(
    Array.from({ length: callers }, async (_, i) => {
      const person = { email: `caller${i}@example.org`, password: 'correct horse battery staple' };
      await stack.call('POST', '/v1/users', { ...person, name: `Caller ${i}`, role: 'member' });
      const signedIn = await fetch(`${stack.apiUrl}/v1/session`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(person),
      });
      return signedIn.headers.getSetCookie()[0]?.split(';', 1)[0] ?? '';
    }),
  );
  const requestOf = (/** @type {string} */ cookie) =>
    `POST /v1/tokens HTTP/1.1\r\nHost: bench\r\nCookie: ${cookie}\r\nContent-Type: application/json\r\nUser-Agent: bench/1\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
  const owners = await stack.database.query(`SELECT id FROM users WHERE role = 'member'`);
  const raw = await start({
    args: [path.join(peers, 'raw-inserts.mjs'), stack.database.url, String(CONNECTIONS), ...owners.map(({ id }) => id)],
    ready: /^ready$/,
  });
  stops.push(() => raw.stop());
  const issue = async (/** @type {number} */ forMs, /** @type {string[]} */ by = cookies) => {
    const job = { port: Number(port), request: by.map(requestOf), connections: callers, ms: forMs, ok: 201 };
    const result = JSON.parse(await load.ask(JSON.stringify(job)));
    if (result.errors > 0) throw new Error(`${result.errors} of ${result.count} responses were not 201`);
    return { perSecond: (result.count * 1_000) / result.ms, p50: result.p50, p99: result.p99, count: result.count };
  };
  const insert = async (/** @type {number} */ forMs) => {
    const result = JSON.parse(await raw.ask(JSON.stringify({ atOnce: callers, ms: forMs })));
    return { perSecond: (result.count * 1_000) / result.ms, count: result.count };
  };
  await issue(3_000);
  await insert(1_500);
  const taken = [];
  for (let round = 0; round < rounds; round++) {
    // Each goes first every other time.
    if (round % 2) taken.push({ raw: await insert(ms), http: await issue(ms) });
    else taken.push({ http: await issue(ms), raw: await insert(ms) });
  }
  const byOne = [];
  for (let round = 0; round < 3; round++) byOne.push((await issue(ms, [stack.cookie])).perSecond);
  const [counted] = await stack.database.query(
    `SELECT (SELECT count(*)::int FROM tokens) AS tokens, (SELECT count(*)::int FROM audit_events WHERE action = 'token.issued') AS events`,
  );
  if (counted?.tokens !== counted?.events) throw new Error(`${counted?.tokens} tokens, ${counted?.events} events`);

  const format = (/** @type {number[]} */ values, digits = 0) => {
    const { median, low, high } = summary(values);
    return `${median.toFixed(digits)} (${low?.toFixed(digits)}–${high?.toFixed(digits)})`;
  };
  console.log(
    `  ${rounds} rounds of ${ms} ms in turn, ${callers} callers, ${CONNECTIONS} connections; median (lowest–highest)`,
  );
  console.log(`  raw inserts      ${format(taken.map((r) => r.raw.perSecond))} transactions/s`);
  console.log(`  issued over HTTP ${format(taken.map((r) => r.http.perSecond))} tokens/s`);
  console.log(
    `  p50 ${format(
      taken.map((r) => r.http.p50),
      1,
    )} ms, p99 ${format(
      taken.map((r) => r.http.p99),
      1,
    )} ms`,
  );
  console.log(`  all by one person ${format(byOne)} tokens/s`);
  const ratios = taken.map((r) => r.http.perSecond / r.raw.perSecond);
  console.log(`  ratio            ${format(ratios, 3)}; goal ${GOAL}`);
  report('raw inserts for each token issued, median', 1 / summary(ratios).median, 1 / GOAL, '×');
} finally {
  for (const stop of stops.reverse()) await stop();
}
