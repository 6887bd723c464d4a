import type { AddressInfo, Socket } from 'node:net';
import {
  createSecureContext,
  createServer,
  getCACertificates,
  type SecureContext,
  type Server,
  setDefaultCACertificates,
} from 'node:tls';
import { afterAll, beforeAll, beforeEach, expect, it } from '@jest/globals';
import { selfSigned, waitFor } from '@latchkey/testing';
import type { ResponseSink, UpstreamConnection, UpstreamFailure } from '../src/engine/index.js';
import { LIFE_MS, UpstreamPool } from '../src/engine/upstream-pool.js';
import type { ResponseHead } from '../src/http/index.js';

const { cert, key } = selfSigned();
const named = selfSigned('localhost');
const trusted = getCACertificates('default');
let server: Server;
let connections: Socket[] = [];
let respond: (socket: Socket) => void;

beforeAll(async () => {
  const SNICallback = (name: string, done: (error: null, context: SecureContext | undefined) => void) =>
    done(null, name === 'localhost' ? createSecureContext(named) : undefined);
  server = createServer({ cert, key, SNICallback }, (socket) => {
    connections.push(socket);
    socket.on('error', () => socket.destroy());
    socket.on('data', () => respond(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
});
afterAll(() => {
  setDefaultCACertificates(trusted);
  for (const socket of connections) socket.destroy();
  server.close();
});
beforeEach(() => {
  connections = [];
  setDefaultCACertificates([cert]);
  respond = (socket) => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
});

/** Takes one response. */
class Response implements ResponseSink {
  readonly method = 'GET';
  readonly policy = { trustedOrigin: true, maySetSession: false, ownCors: false };
  body = '';
  status = 0;
  ended = false;
  failure: UpstreamFailure | undefined;
  wantsContent = () => false;
  onInterim = () => undefined;
  onUpgrade = () => undefined;
  onDrain = () => undefined;
  onResponse(head: ResponseHead, buffer: Buffer, start: number, end: number): void {
    this.status = head.status;
    this.onData(buffer, start, end);
  }
  onData(buffer: Buffer, start: number, end: number): void {
    this.body += buffer.toString('latin1', start, end);
  }
  onEnd(): void {
    this.ended = true;
  }
  onFailure(failure: UpstreamFailure): void {
    this.failure = failure;
  }
}

const origin = () => new URL(`https://127.0.0.1:${(server.address() as AddressInfo).port}`);
const pool = () => new UpstreamPool(origin());

function get(from: UpstreamPool): { response: Response; connection: UpstreamConnection } {
  const response = new Response();
  return { response, connection: from.send(response, 'GET / HTTP/1.1\r\nhost: a\r\n\r\n', true, false) };
}

it('requests over TLS share a connection, one after the other', async () => {
  const pooled = pool();
  for (let i = 0; i < 3; i++) {
    const { response } = get(pooled);
    await waitFor(() => response.ended);
    expect(response.body).toBe('ok');
  }
  expect(connections).toHaveLength(1);
  pooled.close();
});

it('a response over TLS waits while it is paused, and loses nothing', async () => {
  const size = 2_000_000;
  respond = (socket) => socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n${'x'.repeat(size)}`);
  const pooled = pool();
  const { response, connection } = get(pooled);
  await waitFor(() => response.body.length > 0);
  connection.pause();
  // What one read has brought can still be delivered.
  await new Promise((resolve) => setImmediate(resolve));
  const { length } = response.body;
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(response.body.length).toBe(length);
  connection.resume();
  await waitFor(() => response.ended);
  expect(response.body.length).toBe(size);
  pooled.close();
});

it('an upstream whose certificate is not trusted is not reached', async () => {
  setDefaultCACertificates([]);
  const pooled = pool();
  const { response } = get(pooled);
  await waitFor(() => response.failure);
  expect(response.failure).toMatchObject({ kind: 'unreachable', reason: expect.stringMatching(/self-signed/) });
  expect(response.status).toBe(0);
  pooled.close();
});

it('a connection that is not opened in time is given up', async () => {
  const pooled = pool();
  const { response } = get(pooled);
  pooled.tick(performance.now() + 60_000);
  await waitFor(() => response.failure);
  expect(response.failure!.kind).toBe('connect timeout');
  pooled.close();
});

it('an idle connection is closed after the time that its upstream names, or four seconds', async () => {
  const pooled = pool();
  const timed = async (head: string, ms: number) => {
    respond = (socket) => socket.write(`HTTP/1.1 200 OK\r\n${head}Content-Length: 2\r\n\r\nok`);
    const { response, connection } = get(pooled);
    await waitFor(() => response.ended);
    pooled.tick(connection.sinceMs + ms - 1);
    const before = connection.isOpen;
    pooled.tick(connection.sinceMs + ms + 1);
    return [before, connection.isOpen];
  };
  expect(await timed('', 4_000)).toEqual([true, false]);
  expect(await timed('Keep-Alive: timeout=30\r\n', 29_000)).toEqual([true, false]);
  // Whatever the upstream says.
  expect(await timed('Keep-Alive: timeout=999999\r\n', 600_000)).toEqual([true, false]);
  pooled.close();
});

it.each([
  ['for the time of the setting', 30_000, '', 30_000],
  ['for what the upstream says, when that is less', 30_000, 'Keep-Alive: timeout=5\r\n', 4_000],
  ['for no longer than the setting, whatever the upstream says', 2_000, 'Keep-Alive: timeout=30\r\n', 2_000],
])('an idle connection is kept %s', async (_, keepAliveMs, field, ms) => {
  const pooled = new UpstreamPool(origin(), { keepAliveMs });
  respond = (socket) => socket.write(`HTTP/1.1 200 OK\r\n${field}Content-Length: 2\r\n\r\nok`);
  const { response, connection } = get(pooled);
  await waitFor(() => response.ended);
  pooled.tick(connection.sinceMs + ms - 1);
  expect(connection.isOpen).toBe(true);
  pooled.tick(connection.sinceMs + ms + 1);
  expect(connection.isOpen).toBe(false);
  pooled.close();
});

it('a connection to a name is left after a minute, so that the name is looked up again; one to an address is not', async () => {
  setDefaultCACertificates([named.cert]);
  const isKept = async (pooled: UpstreamPool, ageMs: number) => {
    const { response, connection } = get(pooled);
    await waitFor(() => response.ended);
    const openedMs = connection.sinceMs;
    pooled.tick(openedMs + ageMs);
    const isOpen = connection.isOpen;
    pooled.close();
    return isOpen;
  };
  const options = { keepAliveMs: 600_000 };
  const toName = () => new UpstreamPool(new URL(origin().href.replace('127.0.0.1', 'localhost')), options);
  expect(await isKept(toName(), 0.9 * LIFE_MS - 1)).toBe(true);
  expect(await isKept(toName(), 1.1 * LIFE_MS + 1)).toBe(false);
  setDefaultCACertificates([cert]);
  expect(await isKept(new UpstreamPool(origin(), options), 1.1 * LIFE_MS + 1)).toBe(true);
});

it('no more connections are kept idle than is said', async () => {
  const pooled = new UpstreamPool(origin(), { idleMax: 2 });
  const gets = Array.from({ length: 4 }, () => get(pooled));
  await waitFor(() => gets.every(({ response }) => response.ended));
  expect(gets.filter(({ connection }) => connection.isOpen)).toHaveLength(2);
  pooled.close();
});
