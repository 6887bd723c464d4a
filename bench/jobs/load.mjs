/** Steady traffic offered at fixed times, whether earlier calls have returned or not, and how long each took. */
import { Agent, request } from 'undici';
import { percentile } from '../lib.mjs';

/** By kind of call: management API and checks at a gateway; `first check` is that of a token which no gateway has in memory. */
const KINDS = /** @type {const} */ (['list', 'read', 'issue', 'check', 'first check']);
/** A second: 15 pages of tokens, 15 tokens read, 10 issued, 90 checks of known tokens and 10 of those just issued. */
const TURN = 'list read check check check check check check check check check issue list read check check check'.split(
  ' ',
);

/**
 * @param {{ apiUrl: string, cookie: string }} stack
 * @param {string} gatewayUrl
 * @param {{ id: string, secret: string }[]} tokens known to the gateway
 */
export function offeredLoad(stack, gatewayUrl, tokens) {
  const agent = new Agent({ connections: 64, pipelining: 1 });
  /** @type {{ kind: typeof KINDS[number], atMs: number, ms: number }[]} */
  const taken = [];
  /** @type {string[]} */
  const failures = [];
  let calls = 0;
  let running = true;

  /** @param {typeof KINDS[number]} kind @param {number} dueMs @param {() => Promise<{statusCode: number, body: any}>} send */
  const timed = async (kind, dueMs, send) => {
    const { statusCode, body } = await send();
    const text = await body.text();
    // From when it was due: a call that waits behind slow ones has waited.
    taken.push({ kind, atMs: dueMs, ms: performance.now() - dueMs });
    if (statusCode >= 300) failures.push(`${kind} ${statusCode} ${text.slice(0, 200)}`);
    return text;
  };
  const headers = { cookie: stack.cookie };
  const check = (/** @type {string} */ secret) => () =>
    request(`${gatewayUrl}/demo/x`, { dispatcher: agent, headers: { authorization: `Bearer ${secret}` } });
  const token = () => /** @type {{ id: string, secret: string }} */ (tokens[calls % tokens.length]);
  const sends = {
    list: (/** @type {number} */ dueMs) =>
      timed('list', dueMs, () => request(`${stack.apiUrl}/v1/tokens?limit=50`, { dispatcher: agent, headers })),
    read: (/** @type {number} */ dueMs) =>
      timed('read', dueMs, () => request(`${stack.apiUrl}/v1/tokens/${token().id}`, { dispatcher: agent, headers })),
    check: (/** @type {number} */ dueMs) => timed('check', dueMs, check(token().secret)),
    issue: async (/** @type {number} */ dueMs) => {
      const text = await timed('issue', dueMs, () =>
        request(`${stack.apiUrl}/v1/tokens`, {
          dispatcher: agent,
          method: 'POST',
          headers: { ...headers, 'content-type': 'application/json' },
          body: JSON.stringify({ name: 'issued under load' }),
        }),
      );
      await timed('first check', performance.now(), check(JSON.parse(text).secret));
    },
  };

  const startedMs = performance.now();
  /** @type {Promise<unknown>[]} */
  const open = [];
  const loop = (async () => {
    // 8 turns of 17 calls a second, 2 of them to be issued: see TURN.
    for (let n = 0; running; n++) {
      const dueMs = startedMs + (n * 1_000) / 136;
      const waitMs = dueMs - performance.now();
      if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
      calls++;
      const kind = /** @type {keyof typeof sends} */ (TURN[n % TURN.length]);
      open.push(sends[kind](dueMs).catch((error) => failures.push(`${kind} ${error.message}`)));
    }
  })();
  return {
    failures,
    /** What was due between two readings of the clock, by kind and for the management API together; milliseconds. */
    between(/** @type {number} */ fromMs, /** @type {number} */ toMs) {
      const span = taken.filter(({ atMs }) => atMs >= fromMs && atMs < toMs);
      const of = (/** @type {readonly string[]} */ kinds) => {
        const ms = span.filter(({ kind }) => kinds.includes(kind)).map((t) => t.ms);
        const round = (/** @type {number} */ n) => Math.round(n * 10) / 10;
        return {
          n: ms.length,
          p50: round(percentile(ms, 0.5)),
          p99: round(percentile(ms, 0.99)),
          max: round(Math.max(...ms)),
        };
      };
      return { api: of(['list', 'read', 'issue']), ...Object.fromEntries(KINDS.map((kind) => [kind, of([kind])])) };
    },
    async stop() {
      running = false;
      await loop;
      await Promise.all(open);
      await agent.close();
    },
  };
}
