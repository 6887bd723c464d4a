import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { createLogger, listen } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { type CallerRequest, HttpServer, type ResponseSink } from '../src/engine/index.js';
import { UpstreamPool } from '../src/engine/upstream-pool.js';

/** A listener on a free port that responds as the test says. */
async function server(onRequest: (request: CallerRequest) => void, lastBytesMs?: number) {
  const http = new HttpServer({
    onRequest,
    onResponse: () => undefined,
    isTrustedProxy: () => false,
    logger: createLogger('test', 'fatal'),
    connectionsMax: 100,
    ...(lastBytesMs !== undefined && { lastBytesMs }),
  });
  await listen(http.server, 0, '127.0.0.1');
  const { port } = http.server.address() as AddressInfo;
  return { http, port };
}

const GET = 'GET / HTTP/1.1\r\nHost: g\r\n\r\n';

/** The kernel's timer of a connection (proc(5)); 2: it asks whether the other side is still there. */
function timerOf(localPort: number, remotePort: number): number | undefined {
  const hex = (port: number) => port.toString(16).toUpperCase().padStart(4, '0');
  const line = new RegExp(
    `^ *\\d+: [0-9A-F]{8}:${hex(localPort)} [0-9A-F]{8}:${hex(remotePort)} \\S+ \\S+ (\\d\\d):`,
    'm',
  ).exec(readFileSync('/proc/net/tcp', 'latin1'));
  return line ? Number(line[1]) : undefined;
}

(existsSync('/proc/net/tcp') ? it : it.skip)('a side that is silent is asked whether it is still there', async () => {
  const { http, port } = await server(() => undefined);
  const upstream = createServer();
  await listen(upstream, 0, '127.0.0.1');
  const upstreamPort = (upstream.address() as AddressInfo).port;
  const accepted = new Promise<Socket>((resolve) => upstream.once('connection', resolve));
  const caller = connect(port, '127.0.0.1');
  const sent = once(caller, 'connect');
  const pool = new UpstreamPool(new URL(`http://127.0.0.1:${upstreamPort}`));
  pool.send({} as ResponseSink, '', true, true);
  const socket = await accepted;
  await sent;
  await waitFor(() => timerOf(port, caller.localPort!) === 2);
  await waitFor(() => timerOf(socket.remotePort!, upstreamPort) === 2);
  caller.destroy();
  pool.close();
  upstream.close();
  await http.close();
});

it('a fault while a body is read ends the connection that it came over, and no other', async () => {
  const { http, port } = await server((request) => {
    if (!request.head.hasBody) return void request.respond(200, 'OK', '', 'ok');
    request.readBody({
      onBody: () => {
        throw new Error('failed');
      },
      onBodyEnd: () => undefined,
      onBodyMalformed: () => undefined,
    });
  });
  const send = async (bytes: string) => {
    let text = '';
    const socket = connect(port, '127.0.0.1', () => socket.write(bytes));
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      if (text.endsWith('ok')) socket.destroy();
    });
    return new Promise<string>((resolve) => {
      socket.on('error', ({ message }) => resolve(message));
      socket.on('close', () => resolve(text.slice(-2)));
    });
  };
  expect(await send('POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 3\r\n\r\nabc')).toMatch(/ECONNRESET/);
  expect(await send(GET)).toBe('ok');
  await http.close();
});

describe('a stop', () => {
  // More than the kernel keeps of both sides.
  const size = 30_000_000;

  it.each(['', 'Connection: close\r\n'])('lets a slow caller read what was written: %j', async (field) => {
    let responded = false;
    const { http, port } = await server((request) => {
      request.respond(200, 'OK', '', Buffer.alloc(size));
      responded = true;
    }, 60_000);
    const socket = connect(port, '127.0.0.1', () => socket.write(GET.replace('\r\n\r\n', `\r\n${field}\r\n`)));
    await waitFor(() => responded);
    const closed = http.close();
    let received = 0;
    socket.on('data', (bytes) => {
      received += bytes.length;
    });
    await closed;
    await waitFor(() => socket.closed);
    expect(received).toBeGreaterThan(size);
  });

  it('does not wait for a caller that reads nothing', async () => {
    let responded = false;
    const { http, port } = await server((request) => {
      request.respond(200, 'OK', '', Buffer.alloc(size));
      responded = true;
    }, 100);
    const socket = connect(port, '127.0.0.1', () => socket.write(GET));
    socket.on('error', () => socket.destroy());
    await waitFor(() => responded);
    await http.close();
    socket.destroy();
  });
});
