import { Agent, get } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

const LOOPS_PER_GATEWAY = 3;
const PAUSE_MS = 5;
const TIMEOUT_MS = 8_000;

/** Presents a token at a gateway. @returns {Promise<number | null>} the status; null when no answer came */
export function present(/** @type {string} */ url, /** @type {string} */ secret, /** @type {Agent} */ agent) {
  return new Promise((resolve) => {
    const request = get(
      url,
      { agent, headers: { authorization: `Bearer ${secret}` }, timeout: TIMEOUT_MS },
      (answer) => {
        answer.resume();
        resolve(answer.statusCode ?? null);
      },
    );
    request.on('timeout', () => request.destroy(new Error('no answer')));
    request.on('error', () => resolve(null));
  });
}

/** @returns {import('./history.mjs').Check['verdict']} */
function verdictOf(/** @type {number | null} */ status) {
  if (status === null) return 'unreachable';
  if (status === 200) return 'accepted';
  if (status === 401 || status === 403) return 'denied';
  if (status === 502 || status === 503 || status === 504) return 'unavailable';
  throw new Error(`a gateway answered ${status}`);
}

/** Presents all tokens at all gateways in hot loops until stopped, and writes down what came of each. */
export class Observer {
  /** @type {import('./history.mjs').Check[]} */
  checks = [];
  #running = true;
  /** @type {Promise<void>[]} */
  #loops;

  /** @param {import('@latchkey/testing').Cluster} cluster @param {readonly { id: string, secret: string }[]} tokens */
  constructor(cluster, tokens) {
    this.#loops = cluster.gateways.flatMap((gateway) =>
      Array.from({ length: LOOPS_PER_GATEWAY }, (_, n) => this.#loop(cluster, gateway, tokens, n)),
    );
  }

  async stop() {
    this.#running = false;
    await Promise.all(this.#loops);
  }

  /** @param {import('@latchkey/testing').Cluster} cluster @param {import('@latchkey/testing').Member} gateway @param {readonly { id: string, secret: string }[]} tokens @param {number} offset */
  async #loop(cluster, gateway, tokens, offset) {
    const agent = new Agent({ keepAlive: true });
    const url = `${gateway.url}${cluster.guardedPath}`;
    for (let i = offset; this.#running; i++) {
      const token = tokens[i % tokens.length];
      if (!token) break;
      const startMs = performance.now();
      const verdict = verdictOf(await present(url, token.secret, agent));
      this.checks.push({ token: token.id, gateway: gateway.name, startMs, endMs: performance.now(), verdict });
      await sleep(verdict === 'unreachable' ? 50 : PAUSE_MS);
    }
    agent.destroy();
  }
}
