import type { CallerRequest } from '../src/engine/index.js';
import { readMcpBody } from '../src/handlers/mcp-body.js';
import { CallerSocket } from './caller-socket.js';

/** The request whose head is received. */
function requestOf(framing: string): { socket: CallerSocket; request: CallerRequest } {
  let request: CallerRequest | undefined;
  const socket = new CallerSocket((it) => {
    request = it;
  });
  socket.receive(`POST / HTTP/1.1\r\nHost: g\r\nContent-Type: application/json\r\n${framing}\r\n\r\n`);
  return { socket, request: request! };
}

it('a body is read as a whole, however small its chunks are', async () => {
  const { socket, request } = requestOf('Transfer-Encoding: chunked');
  const read = readMcpBody(request, 60_000);
  const text = '{"a":"\u6f0f"}'.repeat(2_000);
  for (const byte of Buffer.from(text)) socket.receive(Buffer.from([0x31, 13, 10, byte, 13, 10]));
  socket.receive('0\r\n\r\n');
  expect(await read).toEqual({ text });
});

it('a body that does not come in time is 408', async () => {
  const { request } = requestOf('Content-Length: 9');
  const read = readMcpBody(request, 60_000);
  request.responder!.onTimeout({ code: 'request_timeout', detail: '' });
  expect(await read).toMatchObject({ error: { code: 'request_timeout' } });
});

it('a body of no bytes is an empty text', async () => {
  const { request } = requestOf('Content-Length: 0');
  expect(await readMcpBody(request, 60_000)).toEqual({ text: '' });
});
