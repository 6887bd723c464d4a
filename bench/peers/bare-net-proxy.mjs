/**
 * A peer of the proxy benchmark: about the least that a proxy with the check can be on node:net. SHA-256 of the Bearer
 * token, a look-up in a Map, the scope, identity headers for the upstream, no Authorization. Bodies by Content-Length
 * only; no time limits, no normalisation of paths, no revocation. `node bare-net-proxy.mjs <upstream port> <tokens>`
 * (JSON: `[{secret, id, owner, scopes}]`); prints its port.
 */
import { hash, randomUUID } from 'node:crypto';
import { connect, createServer } from 'node:net';

const [upstreamPort, given] = [Number(process.argv[2]), JSON.parse(process.argv[3])];
const REQUIRED = 'demo:read';
const tokens = new Map(given.map(({ secret, ...token }) => [hash('sha256', secret, 'base64url'), token]));
const DROPPED = new Set([
  ...['authorization', 'connection', 'keep-alive', 'te', 'transfer-encoding', 'upgrade', 'x-request-id'],
  ...['x-latchkey-token-id', 'x-latchkey-owner', 'x-latchkey-project', 'x-latchkey-scopes'],
  ...['x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-host'],
]);
/** @type {Upstream[]} */
const free = [];

/** Collects a message's head; what follows it is passed on until its Content-Length is reached. */
class Message {
  head = '';
  #left = -1;
  /** @returns the bytes of this message in the chunk that follow its head, and what follows the message */
  take(chunk, onHead) {
    let body = chunk;
    if (this.#left < 0) {
      const before = this.head.length;
      this.head += chunk.latin1Slice();
      const end = this.head.indexOf('\r\n\r\n');
      if (end < 0) return { body: null, rest: null, isEnd: false };
      body = chunk.subarray(end + 4 - before);
      this.head = this.head.slice(0, end);
      this.#left = Number(/\r\ncontent-length: *(\d+)/i.exec(this.head)?.[1] ?? 0);
      onHead(this.head);
    }
    const own = body.length > this.#left ? body.subarray(0, this.#left) : body;
    this.#left -= own.length;
    return { body: own, rest: body.subarray(own.length), isEnd: this.#left === 0 };
  }
}

class Upstream {
  caller = null;
  #response = new Message();
  constructor() {
    this.socket = connect({ port: upstreamPort, host: '127.0.0.1', noDelay: true });
    this.socket.on('data', (chunk) => {
      const { isEnd } = this.#response.take(chunk, () => undefined);
      const { caller } = this;
      caller?.socket.write(chunk);
      if (!isEnd) return;
      this.#response = new Message();
      this.caller = null;
      free.push(this);
      caller?.finished();
    });
    this.socket.on('error', () => this.socket.destroy());
    this.socket.on('close', () => {
      if (free.includes(this)) free.splice(free.indexOf(this), 1);
      this.caller?.socket.destroy();
    });
  }
}

const refused = (status, code) =>
  `HTTP/1.1 ${status}\r\nWWW-Authenticate: Bearer error="${code}"\r\nContent-Length: ${code.length}\r\n\r\n${code}`;

class Caller {
  #request = new Message();
  #upstream = null;
  constructor(socket) {
    this.socket = socket.setNoDelay();
    socket.on('data', (chunk) => this.#read(chunk));
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.#upstream?.socket.destroy());
  }

  #read(chunk) {
    let lines = null;
    const { body, rest, isEnd } = this.#request.take(chunk, (head) => {
      lines = this.#checked(head);
    });
    if (rest?.length > 0) return this.socket.destroy(); // no pipelining
    if (lines?.answer) return this.socket.end(lines.answer);
    if (lines) {
      this.#upstream = free.pop() ?? new Upstream();
      this.#upstream.caller = this;
      this.#upstream.socket.write(lines.text, 'latin1');
    }
    if (body?.length > 0) this.#upstream.socket.write(body);
    if (isEnd) this.#request = new Message();
  }

  #checked(head) {
    const [first, ...lines] = head.split('\r\n');
    let text = `${first}\r\n`;
    let token;
    for (const line of lines) {
      const colon = line.indexOf(':');
      const name = line.slice(0, colon).toLowerCase();
      if (!DROPPED.has(name)) text += `${line}\r\n`;
      else if (name === 'authorization' && /^ *bearer /i.test(line.slice(colon + 1)))
        token = tokens.get(hash('sha256', line.slice(line.lastIndexOf(' ') + 1), 'base64url'));
    }
    if (!token) return { answer: refused('401 Unauthorized', 'invalid_token') };
    if (!token.scopes.includes(REQUIRED)) return { answer: refused('403 Forbidden', 'insufficient_scope') };
    text += `x-latchkey-token-id: ${token.id}\r\nx-latchkey-owner: ${token.owner}\r\nx-latchkey-scopes: ${token.scopes.join(' ')}\r\n`;
    return {
      text: `${text}x-request-id: ${randomUUID()}\r\nx-forwarded-for: ${this.socket.remoteAddress}\r\nx-forwarded-proto: http\r\n\r\n`,
    };
  }

  finished() {
    this.#upstream = null;
  }
}

const server = createServer((socket) => new Caller(socket));
server.listen(0, '127.0.0.1', () => console.log(`port ${server.address().port}`));
