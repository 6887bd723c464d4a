import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { connect, createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { credentials, loadPackageDefinition } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { EXT_AUTHZ_PROTO_FILE } from '@latchkey/contracts';
import { listen, PROTO_OPTIONS } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { stopLimits } from '../src/stop.js';
import { raw, type Stack, stack } from './stack.js';

const start = (env: Record<string, string> = {}) =>
  stack(
    (upstream) => `
routes:
  - { name: open, path: /open/*, upstream: "${upstream}", public: true }
  - { name: any, path: /any/*, upstream: "${upstream}", require: {} }
  - { name: mcp, path: /tools/mcp, kind: mcp, upstream: "${upstream}", tools: { "*": [] } }
`,
    env,
  );

const GET = 'GET /open/x HTTP/1.1\r\nHost: g\r\n\r\n';
const isRefused = (port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(false);
    });
    socket.once('error', ({ message }) => resolve(message.includes('ECONNREFUSED')));
  });
/** A connection that the gateway has accepted. */
async function opened({ gateway }: Stack): Promise<{ socket: Socket; text: () => string }> {
  let text = '';
  const before = gateway.openConnections();
  const socket = connect(gateway.port, '127.0.0.1');
  socket.on('data', (bytes) => {
    text += bytes.toString('latin1');
  });
  socket.on('error', () => socket.destroy());
  await waitFor(() => gateway.openConnections() === before + 1);
  return { socket, text: () => text };
}

describe('a gateway that is told to stop', () => {
  it('is not ready at once, and goes on accepting for a while, with connections that close', async () => {
    await using s = await start({ SHUTDOWN_DELAY_MS: '60000' });
    const { port, opsPort } = s.gateway;
    const kept = await opened(s);
    kept.socket.write(GET);
    await waitFor(() => kept.text().endsWith('ok'));
    expect(kept.text()).not.toContain('connection: close');
    const stopped = s.gateway.stop();
    for (const at of [port, opsPort]) {
      const { status, body, headers } = await raw(at, 'GET /readyz HTTP/1.1\r\nHost: g\r\n\r\n');
      expect([status, JSON.parse(body).checks, headers['connection']]).toEqual([
        503,
        { 'token-service': 'the gateway is stopping' },
        'close',
      ]);
    }
    // A new connection, and one that was kept: both close after the response.
    expect(await raw(port, GET)).toMatchObject({ status: 200, body: expect.stringContaining('ok') });
    kept.socket.write(GET);
    await once(kept.socket, 'close');
    expect(kept.text().match(/HTTP\/1\.1 200 OK/g)).toHaveLength(2);
    expect(kept.text().match(/connection: close/g)).toHaveLength(1);
    // Told that its ports are needed, it waits no longer.
    void s.gateway.stop({ atOnce: true });
    await stopped;
    expect(await Promise.all([port, opsPort].map(isRefused))).toEqual([true, true]);
  });

  it.each([
    ['whose head has come in part', GET.slice(0, 20)],
    ['whose connection was just opened', ''],
  ])('serves a request %s', async (_, first) => {
    await using s = await start();
    const { socket, text } = await opened(s);
    await new Promise<void>((resolve) => void socket.write(first, () => resolve()));
    const stopped = s.gateway.stop();
    // The rest comes when the listener is closed, and idle connections with it; a new connection is not kept for as long.
    if (first !== '') await waitFor(() => isRefused(s.gateway.port));
    socket.write(GET.slice(first.length));
    await stopped;
    expect(text()).toMatch(/^HTTP\/1\.1 200 OK.*connection: close.*ok/s);
  });

  it('gives a message that is still read, or checked, as long as a request that is forwarded', async () => {
    await using s = await start();
    const message = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'ping' });
    const authorization = `Authorization: Bearer ${s.authority.issue().secret}`;
    const { socket, text } = await opened(s);
    socket.write(
      `POST /tools/mcp HTTP/1.1\r\nHost: g\r\n${authorization}\r\nContent-Type: application/json\r\nContent-Length: ${message.length}\r\n\r\n${message.slice(0, 9)}`,
    );
    await waitFor(() => s.authority.lookups.length === 1);
    const stopped = s.gateway.stop();
    // More than what callers have to read the end of their responses.
    await sleep(1_500);
    socket.write(message.slice(9));
    await stopped;
    expect(text()).toMatch(/^HTTP\/1\.1 200 OK/);
  });

  it('begins no stream once it has ended the others', async () => {
    await using s = await start();
    const reached = Promise.withResolvers<void>();
    const released = Promise.withResolvers<void>();
    s.upstream.handler = async (_req, res) => {
      reached.resolve();
      await released.promise;
      res.writeHead(200, { 'content-type': 'text/event-stream' }).write('data: hello\n\n');
    };
    const request = httpRequest(`${s.gateway.url}/open/x`).end();
    const response = once(request, 'response') as Promise<[IncomingMessage]>;
    await reached.promise;
    const stopped = s.gateway.stop();
    await waitFor(() => isRefused(s.gateway.port));
    released.resolve();
    const [{ statusCode, headers }] = await response;
    expect([statusCode, headers['content-type']]).toEqual([503, 'application/problem+json']);
    await stopped;
  });

  it('responds to a call of Envoy that was on its way when it told Envoy to leave', async () => {
    await using s = await start();
    // Between the two: what the caller sends can be delayed.
    let isHeld = false;
    const held: (() => void)[] = [];
    let told: () => void = () => undefined;
    const between = createServer((caller) => {
      const server = connect(s.gateway.authzPort, '127.0.0.1');
      caller.on('data', (bytes) => (isHeld ? held.push(() => server.write(bytes)) : server.write(bytes)));
      server.on('data', (bytes) => {
        caller.write(bytes);
        if (isHeld) told();
      });
      for (const [one, other] of [
        [caller, server],
        [server, caller],
      ] as const)
        one.on('error', () => undefined).on('close', () => other.destroy());
    });
    await listen(between, 0, '127.0.0.1');
    const { port } = between.address() as { port: number };
    type Check = (request: object, done: (error: Error | null, checked: object) => void) => void;
    const loaded = loadPackageDefinition(loadSync(EXT_AUTHZ_PROTO_FILE, PROTO_OPTIONS)) as unknown as {
      envoy: { service: { auth: { v3: { Authorization: new (at: string, c: object) => Envoy } } } };
    };
    type Envoy = { check: Check; close(): void };
    const envoy = new loaded.envoy.service.auth.v3.Authorization(`127.0.0.1:${port}`, credentials.createInsecure());
    const { secret } = s.authority.issue();
    const http = { method: 'GET', path: '/any/x', headers: { authorization: `Bearer ${secret}` } };
    const check = () =>
      new Promise<object>((resolve, reject) =>
        envoy.check({ attributes: { request: { http } } }, (error, checked) =>
          error ? reject(error) : resolve(checked),
        ),
      );
    expect(await check()).toMatchObject({ status: { code: 0 } });
    isHeld = true;
    const goAway = new Promise<void>((resolve) => {
      told = resolve;
    });
    const response = check();
    await waitFor(() => held.length > 0);
    const stopped = s.gateway.stop();
    await goAway;
    isHeld = false;
    for (const send of held) send();
    expect(await response).toMatchObject({ status: { code: 0 } });
    await stopped;
    envoy.close();
    between.close();
  });

  it('has one budget of time, in which the delay counts', () => {
    expect(stopLimits(2_000)).toEqual({
      acceptedMs: 2_000,
      drainedMs: 10_000,
      stoppedMs: 13_000,
      killedMs: 14_000,
      exitMs: 15_000,
    });
    // Where others accept, two seconds are needed in any case.
    expect(stopLimits(0)).toEqual({ ...stopLimits(2_000), acceptedMs: 0 });
    expect(stopLimits(10_000).exitMs).toBe(23_000);
  });
});
