/**
 * Listing and searching tokens over HTTP, at ten thousand and at a million: the real token-service on a real PostgreSQL,
 * one of each size, asked in turn, request by request. What is compared is the median (and the 99th percentile) of the
 * same question at both sizes; the goal is a ratio of at most 1.5.
 *
 * The deep page is reached as a client reaches it: by walking there, cursor after cursor. "Page 10 000 of 1" is the same
 * page at both sizes; "page 10 000 of 25" begins after 249 975 tokens and is compared with the last full page of the
 * small one. The whole of the large list is walked once, to see that no token comes twice and none is missed.
 */
import { LIST_SETTINGS, Order, selectPage } from '@latchkey/token-service/listing';
import pg from 'pg';
import { Agent, request } from 'undici';
import { startStack } from './jobs/stack.mjs';
import { options } from './lib/options.mjs';
import { BIG_PERSON, BIG_PROJECT, FILL_OWNERS, fillTokens, MIDDLE } from './lib/tokens.mjs';
import { percentile, report } from './lib.mjs';

const {
  small: SMALL,
  large: LARGE,
  samples: SAMPLES,
  plans: PLANS,
} = options('pagination', 'Pages and searches of tokens over HTTP at two sizes, asked in turn: ratio of the medians.', {
  small: [10_000, 'tokens of the small list'],
  large: [1_000_000, 'tokens of the large list'],
  samples: [300, 'requests of each kind and size'],
  plans: [false, 'prints the query plans of the large list'],
});
const WARM_UP = 20;
const GOAL = 1.5;
const agent = new Agent({ connections: 1, pipelining: 1 });

/** @typedef {{authorization: string} | {cookie: string}} Credentials */

/** A token-service with so many tokens, and those who ask it. @param {number} size */
async function startSize(size) {
  const stack = await startStack();
  const client = new pg.Client({ connectionString: stack.database.url });
  await client.connect();
  await client.query(FILL_OWNERS);
  const started = performance.now();
  await fillTokens(client, 0, size);
  console.log(`  ${size} tokens filled in ${((performance.now() - started) / 1000).toFixed(0)} s`);
  await client.query(
    `UPDATE users SET password_hash = (SELECT password_hash FROM users WHERE role = 'admin') WHERE id = $1`,
    [BIG_PERSON],
  );
  const signedIn = await fetch(`${stack.apiUrl}/v1/session`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ email: 'person1@example.org', password: 'the first administrator' }),
  });
  const issued = await fetch(`${stack.apiUrl}/v1/tokens`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', cookie: stack.cookie },
    body: JSON.stringify({ name: 'bench', kind: 'prj', projectId: BIG_PROJECT, scopes: ['tokens:read'] }),
  });
  const { secret } = /** @type {{secret: string}} */ (await issued.json());
  /** @type {Record<string, Credentials>} */
  const callers = {
    administrator: { cookie: stack.cookie },
    member: { cookie: signedIn.headers.getSetCookie()[0]?.split(';', 1)[0] ?? '' },
    project: { authorization: `Bearer ${secret}` },
  };
  const middle = await client.query(MIDDLE, [Math.floor(size * 0.4)]);
  return { size, stack, client, callers, middle: /** @type {{name: string, start: string}} */ (middle.rows[0]) };
}
/** @typedef {Awaited<ReturnType<typeof startSize>>} Sized */

/** @param {Sized} sized @param {string} caller @param {Record<string, string | number>} query */
async function list(sized, caller, query) {
  const search = new URLSearchParams(Object.entries(query).map(([name, value]) => [name, String(value)]));
  const response = await request(`${sized.stack.apiUrl}/v1/tokens?${search}`, {
    dispatcher: agent,
    headers: sized.callers[caller],
  });
  const body = /** @type {any} */ (await response.body.json());
  if (response.statusCode !== 200) throw new Error(`${response.statusCode} ${JSON.stringify(body)}`);
  return /** @type {{items: {id: string}[], nextCursor: string | null}} */ (body);
}

/**
 * Walks a list and collects the cursors after so many tokens.
 * @param {Sized} sized @param {string} caller @param {number[]} stops @param {boolean} toTheEnd
 */
async function walk(sized, caller, stops, toTheEnd) {
  const cursors = new Map();
  const seen = new Set();
  let count = 0;
  /** @type {string | null} */
  let cursor = null;
  do {
    const next = stops.find((stop) => stop > count) ?? Number.POSITIVE_INFINITY;
    if (next === Number.POSITIVE_INFINITY && !toTheEnd) break;
    const page = await list(sized, caller, { limit: Math.min(100, next - count), ...(cursor && { cursor }) });
    count += page.items.length;
    if (toTheEnd) for (const { id } of page.items) seen.add(id);
    cursor = page.nextCursor;
    if (stops.includes(count)) cursors.set(count, cursor);
  } while (cursor);
  return { cursors, count, different: seen.size };
}

/** The deep page of 25: the ten-thousandth, or where there is none the last full one. @param {number} count */
const deepPage = (count) => Math.min(10_000, Math.floor(count / 25)) - 1;

/** @param {Sized} sized */
async function questions(sized) {
  const owned = async (/** @type {string} */ owner) =>
    (await sized.client.query('SELECT count(*)::int AS n FROM tokens WHERE owner_id = $1', [owner])).rows[0].n;
  const counts = { administrator: sized.size, member: await owned(BIG_PERSON), project: await owned(BIG_PROJECT) };
  /** @type {Record<string, [caller: string, query: Record<string, string | number>]>} */
  const asked = {};
  for (const [caller, count] of Object.entries(counts)) {
    const page = deepPage(count);
    const stops = caller === 'administrator' ? [9_999, page * 25].sort((a, b) => a - b) : [page * 25];
    const { cursors } = await walk(sized, caller, stops, false);
    asked[`${caller}: first page of 25`] = [caller, {}];
    asked[`${caller}: page 10 000 of 25, or the last`] = [caller, { cursor: cursors.get(page * 25) }];
    if (caller === 'administrator') {
      asked[`${caller}: first page of 1`] = [caller, { limit: 1 }];
      asked[`${caller}: page 10 000 of 1`] = [caller, { limit: 1, cursor: cursors.get(9_999) }];
    }
    asked[`${caller}: name, a frequent word`] = [caller, { q: 'deploy' }];
    asked[`${caller}: name, of one token`] = [caller, { q: sized.middle.name }];
    asked[`${caller}: name, of none`] = [caller, { q: 'zebra' }];
    asked[`${caller}: name, two letters`] = [caller, { q: 'n8' }];
    asked[`${caller}: start`] = [caller, { q: sized.middle.start }];
    for (const status of ['active', 'expired', 'revoked', 'disabled'])
      asked[`${caller}: status ${status}`] = [caller, { status }];
  }
  asked['administrator: owner'] = ['administrator', { owner: BIG_PERSON }];
  asked['administrator: project'] = ['administrator', { projectId: BIG_PROJECT }];
  asked['administrator: owner, name of one, active'] = [
    'administrator',
    { owner: BIG_PERSON, q: sized.middle.name, status: 'active' },
  ];
  return asked;
}

/** @param {Sized} sized @param {Record<string, [caller: string, query: Record<string, string | number>]>} asked */
async function printPlans(sized, asked) {
  for (const [name, value] of Object.entries(LIST_SETTINGS)) await sized.client.query(`SET ${name} = ${value}`);
  const owners = { administrator: /** @type {const} */ ('all'), member: [BIG_PERSON], project: [BIG_PROJECT] };
  for (const [what, [caller, query]] of Object.entries(asked)) {
    const { limit = 25, owner, projectId, ...rest } = /** @type {any} */ (query);
    /** @type {unknown[]} */
    const values = [];
    const whose = owner || projectId ? [owner ?? projectId] : owners[/** @type {keyof typeof owners} */ (caller)];
    const sql = selectPage({ limit, ...rest }, whose, new Order('-created'), (value) => `$${values.push(value)}`);
    const { rows } = await sized.client.query(`EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) ${sql}`, values);
    console.log(`\n${what} (${sized.size} tokens)\n${rows.map((row) => row['QUERY PLAN']).join('\n')}`);
  }
}

const sizes = [];
try {
  for (const size of [SMALL, LARGE]) sizes.push(await startSize(size));
  const [small, large] = /** @type {[Sized, Sized]} */ (sizes);
  const [askedSmall, askedLarge] = [await questions(small), await questions(large)];
  const width = Math.max(...Object.keys(askedLarge).map((what) => what.length));
  console.log(`  ${SAMPLES} requests each, in turn; milliseconds over HTTP`);
  console.log(`  ${''.padEnd(width)}  ${small.size} p50   p99   ${large.size} p50   p99   ratio p50  p99`);
  let worst = 0;
  for (const what of Object.keys(askedLarge)) {
    /** @type {Map<Sized, number[]>} */
    const took = new Map([
      [small, []],
      [large, []],
    ]);
    for (let i = 0; i < SAMPLES + WARM_UP; i++)
      for (const [sized, asked] of /** @type {const} */ ([
        [small, askedSmall],
        [large, askedLarge],
      ])) {
        const [caller, query] = asked[what] ?? ['', {}];
        const started = performance.now();
        await list(sized, caller, query);
        if (i >= WARM_UP) took.get(sized)?.push(performance.now() - started);
      }
    const at = (/** @type {Sized} */ sized, /** @type {number} */ share) => percentile(took.get(sized) ?? [], share);
    const [p50, p99] = [0.5, 0.99].map((share) => at(large, share) / at(small, share));
    worst = Math.max(worst, p50 ?? 0);
    const figures = [at(small, 0.5), at(small, 0.99), at(large, 0.5), at(large, 0.99), p50 ?? 0, p99 ?? 0];
    console.log(`  ${what.padEnd(width)}  ${figures.map((figure) => figure.toFixed(2).padStart(8)).join('  ')}`);
  }
  const { count, different } = await walk(large, 'administrator', [], true);
  if (count !== large.size + 1 || different !== count) throw new Error(`walked ${count}, ${different} different`);
  console.log(`  the whole list walked in pages of 100: ${count} tokens, each once`);
  if (PLANS) await printPlans(large, askedLarge);
  report('the worst ratio of the medians', worst, GOAL, '×');
} finally {
  for (const { stack, client } of sizes) {
    await client.end();
    await stack.stop();
  }
  await agent.close();
}
