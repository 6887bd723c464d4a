import { type AddressInfo, connect } from 'node:net';
import { createLogger, listen } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { type CallerRequest, HttpServer } from '../src/engine/index.js';

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
