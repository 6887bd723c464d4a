/** Twenty requests a second as an installation serves them, and what came of each. */
import { request as httpRequest } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

/** Of one second: proxied GETs, lists, one token issued, revoked and used again, one without a token. */
const SECOND = [...Array(13).fill('proxied'), ...Array(5).fill('list'), 'revocation', 'public'];
const EVERY_MS = 1_000 / SECOND.length;
/** A request without a response by then has failed. */
const TIMEOUT_MS = 10_000;
/** The longest wait for a revocation is one lease, its drift allowance and two seconds. */
const REVOCATION_TIMEOUT_MS = 20_000;

/**
 * @typedef {'proxied' | 'list' | 'revocation' | 'public'} Kind
 *
 * @typedef {object} Sent
 * @property {Kind} kind
 * @property {number} atMs when it was sent, since the epoch
 * @property {number} ms until its response
 * @property {string} failure empty: it was served
 *
 * @typedef {object} Result
 * @property {number} sent
 * @property {Sent[]} failed
 * @property {string[]} stale tokens that were accepted after their revocation was effective
 * @property {number} revocations how many were effective
 * @property {number} outageMs from the first failed request to the end of the last one
 * @property {number} slow proxied requests that took more than two seconds
 * @property {number} p50Ms of proxied requests
 * @property {number} p99Ms
 */

/**
 * Sends one request on a connection of its own, as a script does.
 * @param {URL} url
 * @param {{ method?: string, headers?: Record<string, string>, body?: object, timeoutMs?: number }} [options]
 * @returns {Promise<{ status: number, headers: import('node:http').IncomingHttpHeaders, text: string }>}
 * @throws when the connection fails or there is no whole response in time
 */
export function send(url, { method = 'GET', headers = {}, body, timeoutMs = TIMEOUT_MS } = {}) {
  const text = body && JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      url,
      {
        method,
        agent: false,
        headers: {
          ...headers,
          ...(text !== undefined && { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }),
        },
        signal: AbortSignal.timeout(timeoutMs),
      },
      (response) => {
        let received = '';
        response.setEncoding('utf8');
        response.on('data', (/** @type {string} */ chunk) => {
          received += chunk;
        });
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, headers: response.headers, text: received }),
        );
        response.on('error', reject);
      },
    );
    request.on('error', reject);
    request.end(text);
  });
}

/** Sends until it is stopped, whatever becomes of what was sent. */
export class Load {
  /** @type {Sent[]} */
  #sent = [];
  /** @type {string[]} */
  #stale = [];
  #revocations = 0;
  #isRunning = true;
  /** @type {Set<Promise<void>>} */
  #open = new Set();
  #loop;
  #url;
  #cookie;
  #token;
  #proxiedPath;
  #scope;

  /** @param {{ url: string, cookie: string, token: string, proxiedPath: string, scope: string }} target `cookie` of an administrator */
  constructor({ url, cookie, token, proxiedPath, scope }) {
    this.#url = url;
    this.#cookie = cookie;
    this.#token = token;
    this.#proxiedPath = proxiedPath;
    this.#scope = scope;
    this.#loop = this.#run();
  }

  get count() {
    return this.#sent.length;
  }

  /** @returns {Promise<Result>} */
  async stop() {
    this.#isRunning = false;
    await this.#loop;
    await Promise.all(this.#open);
    const failed = this.#sent.filter(({ failure }) => failure !== '').sort((a, b) => a.atMs - b.atMs);
    const times = this.#sent.flatMap(({ kind, failure, ms }) => (kind === 'proxied' && !failure ? [ms] : []));
    times.sort((a, b) => a - b);
    const at = (/** @type {number} */ share) =>
      times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? 0;
    const last = Math.max(0, ...failed.map(({ atMs, ms }) => atMs + ms));
    return {
      sent: this.#sent.length,
      failed,
      stale: this.#stale,
      revocations: this.#revocations,
      outageMs: failed[0] ? last - failed[0].atMs : 0,
      slow: times.filter((ms) => ms > 2_000).length,
      p50Ms: at(0.5),
      p99Ms: at(0.99),
    };
  }

  async #run() {
    const startMs = performance.now();
    for (let n = 0; this.#isRunning; n++) {
      const waitMs = startMs + n * EVERY_MS - performance.now();
      if (waitMs > 0) await sleep(waitMs);
      const kind = /** @type {Kind} */ (SECOND[n % SECOND.length]);
      const one = this.#one(kind).finally(() => this.#open.delete(one));
      this.#open.add(one);
    }
  }

  /** @param {Kind} kind */
  async #one(kind) {
    const atMs = Date.now();
    const startMs = performance.now();
    let failure = '';
    try {
      failure = kind === 'revocation' ? await this.#revocation() : await this.#get(kind);
    } catch (error) {
      failure =
        error instanceof Error
          ? `${kind}: ${/** @type {{ code?: string }} */ (error).code ?? error.name}`
          : String(error);
    }
    this.#sent.push({ kind, atMs, ms: performance.now() - startMs, failure });
  }

  /** @param {Exclude<Kind, 'revocation'>} kind */
  async #get(kind) {
    const cookie = { cookie: this.#cookie };
    const [target, headers] = {
      proxied: /** @type {const} */ ([this.#proxiedPath, { authorization: `Bearer ${this.#token}` }]),
      list: /** @type {const} */ (['/v1/tokens?limit=20', cookie]),
      public: /** @type {const} */ (['/', {}]),
    }[kind];
    const { status } = await send(new URL(target, this.#url), { headers });
    return status === 200 ? '' : `${kind}: ${status}`;
  }

  /** Issues a token, revokes it, and uses it when the revocation is effective. */
  async #revocation() {
    const headers = { cookie: this.#cookie, origin: new URL(this.#url).origin };
    const issued = await send(new URL('/v1/tokens', this.#url), {
      method: 'POST',
      headers,
      body: { name: 'under load', scopes: [this.#scope], expiresInSeconds: 3_600 },
    });
    if (issued.status !== 201) return `issuing: ${issued.status}`;
    const { id, secret } = JSON.parse(issued.text);
    const use = () => send(new URL(this.#proxiedPath, this.#url), { headers: { authorization: `Bearer ${secret}` } });
    const before = await use();
    if (before.status !== 200) return `using a new token: ${before.status}`;
    const revoked = await send(new URL(`/v1/tokens/${id}/revoke`, this.#url), {
      method: 'POST',
      headers,
      body: { reason: 'exposed' },
      timeoutMs: REVOCATION_TIMEOUT_MS,
    });
    // 202: durable, and not confirmed yet. That is its promise, not a failure.
    if (revoked.status !== 200) return revoked.status === 202 ? '' : `revoking: ${revoked.status}`;
    if (!JSON.parse(revoked.text).effective) return '';
    this.#revocations++;
    const after = await use();
    if (after.status < 400) this.#stale.push(id);
    return after.status === 401 ? '' : `using a revoked token: ${after.status}`;
  }
}
