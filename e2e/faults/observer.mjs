import { createConnection } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const LOOPS_PER_GATEWAY = 4;
const TIMEOUT_MS = 8_000;
/** Pause after a check that got no verdict, so that a fault is not flooded with requests. */
const PAUSE_UNAVAILABLE_MS = 10;
const PAUSE_UNREACHABLE_MS = 50;

/**
 * Presents tokens at one gateway over one connection, one after the other. On bare sockets: what a check costs here is
 * taken from the services under test.
 */
export class Caller {
  #host;
  #port;
  #head;
  /** @type {import('node:net').Socket | undefined} */
  #socket;
  #received = '';
  /** @type {((status: number | null) => void) | undefined} */
  #resolve;

  /** @param {string} gatewayUrl @param {string} path */
  constructor(gatewayUrl, path) {
    const { hostname, port, host } = new URL(gatewayUrl);
    this.#host = hostname;
    this.#port = Number(port);
    this.#head = `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nAuthorization: Bearer `;
  }

  /** @returns {Promise<number | null>} the status; null when no complete response came */
  present(/** @type {string} */ secret) {
    return new Promise((resolve) => {
      this.#resolve = resolve;
      this.#socket ??= this.#connect();
      this.#socket.write(`${this.#head}${secret}\r\n\r\n`);
    });
  }

  close() {
    this.#socket?.destroy();
  }

  #connect() {
    const socket = createConnection({ host: this.#host, port: this.#port, noDelay: true });
    const end = () => {
      socket.destroy();
      if (this.#socket !== socket) return;
      this.#socket = undefined;
      this.#received = '';
      this.#finish(null);
    };
    socket.setEncoding('latin1').setTimeout(TIMEOUT_MS);
    socket.on('data', (/** @type {string} */ text) => this.#onData(text));
    for (const event of ['timeout', 'error', 'end', 'close']) socket.on(event, end);
    return socket;
  }

  #onData(/** @type {string} */ text) {
    this.#received += text;
    const headEnd = this.#received.indexOf('\r\n\r\n');
    if (headEnd < 0) return;
    const head = this.#received.slice(0, headEnd);
    const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
    const isWhole =
      length === undefined
        ? /\r\n0\r\n\r\n$/.test(this.#received.slice(headEnd))
        : this.#received.length >= headEnd + 4 + Number(length);
    if (!isWhole) return;
    this.#received = '';
    if (/\r\nconnection: *close/i.test(head)) {
      this.#socket?.destroy();
      this.#socket = undefined;
    }
    this.#finish(Number(head.slice(9, 12)));
  }

  #finish(/** @type {number | null} */ status) {
    const resolve = this.#resolve;
    this.#resolve = undefined;
    resolve?.(status);
  }
}

/** @returns {import('./history.mjs').Check['verdict']} */
export function verdictOf(/** @type {number | null} */ status) {
  if (status === null) return 'unreachable';
  if (status === 200) return 'accepted';
  if (status === 401 || status === 403) return 'denied';
  if (status === 502 || status === 503 || status === 504) return 'unavailable';
  throw new Error(`a gateway returned ${status}`);
}

/** Presents all tokens at all gateways in hot loops until stopped, and writes down what came of each. */
export class Observer {
  /** @type {import('./history.mjs').Check[]} */
  checks = [];
  #running = true;
  /** @type {Promise<void>} */
  #loops;

  /** @param {import('@latchkey/testing').Cluster} cluster @param {readonly { id: string, secret: string }[]} tokens */
  constructor(cluster, tokens) {
    const loops = cluster.gateways.flatMap((gateway) =>
      Array.from({ length: LOOPS_PER_GATEWAY }, (_, n) => this.#loop(cluster, gateway, tokens, n)),
    );
    this.#loops = Promise.all(loops).then(() => undefined);
    this.#loops.catch(() => undefined); // thrown when it is stopped
  }

  async stop() {
    this.#running = false;
    await this.#loops;
  }

  /** @param {import('@latchkey/testing').Cluster} cluster @param {import('@latchkey/testing').Member} gateway @param {readonly { id: string, secret: string }[]} tokens @param {number} offset */
  async #loop(cluster, gateway, tokens, offset) {
    const caller = new Caller(gateway.url, cluster.guardedPath);
    try {
      for (let i = offset; this.#running; i++) {
        const token = tokens[i % tokens.length];
        if (!token) break;
        const startMs = performance.now();
        const verdict = verdictOf(await caller.present(token.secret));
        this.checks.push({ token: token.id, gateway: gateway.name, startMs, endMs: performance.now(), verdict });
        if (verdict === 'unreachable') await sleep(PAUSE_UNREACHABLE_MS);
        else if (verdict === 'unavailable') await sleep(PAUSE_UNAVAILABLE_MS);
      }
    } finally {
      caller.close();
    }
  }
}
