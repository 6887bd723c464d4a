import { setTimeout as sleep } from 'node:timers/promises';
import { Caller } from '../faults/observer.mjs';

/** Each token is presented at each place so often by default; while that takes longer, for half of the time, so that services recover. */
const EVERY_MS = 100;
const MAX_PAUSE_MS = 500;
const CONNECTIONS_PER_PLACE = 4;

/**
 * @typedef {object} Check
 * @property {string} token id
 * @property {string} place name of the gateway or token-service
 * @property {number} startMs
 * @property {number} endMs
 * @property {number | null} status null: no response
 */

/** Presents tokens at every gateway and token-service of a cluster until stopped, and writes down what came of each. */
export class Presenter {
  /** @type {Check[]} */
  checks = [];
  /** The last check of each token at each place. @type {Map<string, Check>} */
  #last = new Map();
  /** @type {{ id: string, secret: string }[]} */
  #tokens;
  #places;
  #everyMs;
  #running = true;
  /** @type {Promise<unknown>} */
  #loops;

  /**
   * @param {import('./requests.mjs').Cluster} cluster
   * @param {readonly { id: string, secret: string }[]} tokens
   * @param {number} [everyMs]
   */
  constructor(cluster, tokens, everyMs = EVERY_MS) {
    this.#everyMs = everyMs;
    this.#tokens = [...tokens];
    this.#places = [
      ...cluster.gateways.map(({ name, url }) => ({ name, url, path: cluster.guardedPath })),
      ...cluster.tokenServices.map(({ name, url }) => ({ name, url, path: '/v1/tokens/self' })),
    ];
    this.#loops = Promise.all(this.#places.map((place) => this.#loop(place)));
    this.#loops.catch(() => undefined); // thrown when it is stopped
  }

  /** @param {{ id: string, secret: string }} token */
  add(token) {
    this.#tokens.push(token);
  }

  /** Whether each token was accepted everywhere when it was last presented, after the given time. @param {readonly { id: string }[]} tokens @param {number} sinceMs */
  areAccepted(tokens, sinceMs) {
    return this.#places.every(({ name }) =>
      tokens.every(({ id }) => {
        const check = this.#last.get(`${name} ${id}`);
        return check?.status === 200 && check.startMs >= sinceMs;
      }),
    );
  }

  async stop() {
    this.#running = false;
    await this.#loops;
  }

  /** @param {{ name: string, url: string, path: string }} place */
  async #loop({ name, url, path }) {
    const callers = Array.from({ length: CONNECTIONS_PER_PLACE }, () => new Caller(url, path));
    try {
      while (this.#running) {
        const begunMs = performance.now();
        const next = sleep(this.#everyMs);
        const waiting = [...this.#tokens];
        await Promise.all(
          callers.map(async (caller) => {
            for (let token = waiting.pop(); token && this.#running; token = waiting.pop()) {
              const startMs = performance.now();
              const status = await caller.present(token.secret);
              const check = { token: token.id, place: name, startMs, endMs: performance.now(), status };
              this.checks.push(check);
              this.#last.set(`${name} ${token.id}`, check);
              if (status === null) break; // nothing listens, or it hangs: the others would only repeat that
            }
          }),
        );
        await Promise.all([next, sleep(Math.min(performance.now() - begunMs, MAX_PAUSE_MS))]);
      }
    } finally {
      for (const caller of callers) caller.close();
    }
  }
}
