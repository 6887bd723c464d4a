import { randomUUID } from 'node:crypto';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { waitFor } from '@latchkey/testing';
import { raw, type Stack, stack } from './stack.js';

/** What a bare upstream receives on a connection, and the way to answer it. */
interface Received {
  readonly socket: Socket;
  /** All bytes so far, in Latin-1. */
  text: string;
}

let s: Stack;
let secret: string;
let upstream: Server;
const connections: Received[] = [];
/** Called for each piece that arrives at the upstream. */
let respond: (received: Received) => void;

const ORIGIN = 'https://app.example.org';

beforeAll(async () => {
  upstream = createServer({ allowHalfOpen: true }, (socket) => {
    const received: Received = { socket, text: '' };
    connections.push(received);
    socket.on('error', () => socket.destroy());
    socket.on('data', (chunk) => {
      received.text += chunk.toString('latin1');
      respond(received);
    });
  });
  await new Promise<void>((resolve) => upstream.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`;
  s = await stack(
    () => `
routes:
  - { name: w, path: /w/*, upstream: "${url}", require: {}, timeoutMs: 3000, cors: { origins: ["${ORIGIN}"] } }
  - { name: gone, path: /gone/*, upstream: "http://127.0.0.1:1", require: {}, cors: { origins: ["${ORIGIN}"] } }
`,
    { TRUSTED_PROXIES: '127.0.0.1', BODY_IDLE_MS: '3000' },
  );
  ({ secret } = s.authority.issue());
});
afterAll(async () => {
  for (const { socket } of connections) socket.destroy();
  await new Promise<void>((resolve) => upstream.close(() => resolve()));
  await s[Symbol.asyncDispose]();
});
beforeEach(() => {
  for (const { socket } of connections.splice(0)) socket.destroy();
  respond = ({ socket }) => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
});

const head = (line: string, ...fields: string[]) =>
  `${[/ HTTP\/1\.[01]$/.test(line) ? line : `${line} HTTP/1.1`, 'Host: gateway', `Authorization: Bearer ${secret}`, ...fields].join('\r\n')}\r\n\r\n`;
const send = (bytes: string | Buffer, until?: string) => raw(s.gateway.port, bytes, until);
/** What the upstream received on its only connection. */
const received = () => connections[0]!.text;

/** A caller that sends and reads in pieces. */
function caller(): { socket: Socket; text: () => string; closed: () => boolean } {
  let text = '';
  let closed = false;
  const socket = connect(s.gateway.port, '127.0.0.1');
  socket.on('data', (chunk) => {
    text += chunk.toString('latin1');
  });
  socket.on('close', () => {
    closed = true;
  });
  socket.on('error', () => socket.destroy());
  return { socket, text: () => text, closed: () => closed };
}

describe('header values', () => {
  it.each([
    ['UTF-8 of two bytes', Buffer.from('é.pdf').toString('latin1')],
    ['UTF-8 of three bytes', Buffer.from('漏洞.txt').toString('latin1')],
    ['single bytes above 0x7f', '\xe9\xff.pdf'],
    ['a tab inside', 'a\tb'],
  ])('of a response reach the caller byte for byte: %s', async (_, name) => {
    respond = ({ socket }) =>
      socket.write(
        `HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Disposition: attachment; filename="${name}"\r\n\r\nok`,
        'latin1',
      );
    const { status, text } = await send(head('GET /w/x', 'Connection: close'));
    expect(status).toBe(200);
    expect(text).toContain(`Content-Disposition: attachment; filename="${name}"\r\n`);
  });

  it('of a request reach the upstream byte for byte, in their order and spelling', async () => {
    const value = Buffer.from('漏 é').toString('latin1');
    await send(
      Buffer.from(head('GET /w/x', `X-nAmE: ${value}`, 'x-Empty:', 'X-nAmE: 2', 'Connection: close'), 'latin1'),
    );
    expect(received()).toContain(`X-nAmE: ${value}\r\nx-Empty:\r\nX-nAmE: 2\r\n`);
  });

  it('the reason phrase of a response reaches the caller', async () => {
    respond = ({ socket }) => socket.write('HTTP/1.1 299 All fine \r\nContent-Length: 0\r\n\r\n');
    expect((await send(head('GET /w/x', 'Connection: close'))).text).toMatch(/^HTTP\/1\.1 299 All fine \r\n/);
  });

  it('a response without Date gets one, and one with it keeps it', async () => {
    expect((await send(head('GET /w/x', 'Connection: close'))).headers['date']).toMatch(/GMT$/);
    respond = ({ socket }) => socket.write('HTTP/1.1 200 OK\r\nDate: Tue, 01 Jan 2030\r\nContent-Length: 0\r\n\r\n');
    expect((await send(head('GET /w/x', 'Connection: close'))).text.match(/^date:[^\r]*/gim)).toEqual([
      'Date: Tue, 01 Jan 2030',
    ]);
  });
});

describe('what one side has said is passed on when it is there', () => {
  it('the head of a response reaches the caller before the first byte of its body', async () => {
    respond = ({ socket }) =>
      socket.write('HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n');
    const { status, headers } = await send(head('GET /w/x'), '\r\n\r\n');
    expect([status, headers['transfer-encoding']]).toEqual([200, 'chunked']);
  });

  it.each([100, 102, 103, 199])('an interim response of the upstream reaches the caller: %d', async (status) => {
    respond = ({ socket }) =>
      socket.write(
        `HTTP/1.1 ${status} Interim\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok`,
      );
    const { text } = await send(head('GET /w/x', 'Connection: close'));
    expect(text).toMatch(
      new RegExp(`^HTTP/1.1 ${status} Interim\\r\\nLink: </a.css>; rel=preload\\r\\n\\r\\nHTTP/1.1 200 OK\\r\\n`),
    );
  });

  it('an HTTP/1.0 caller gets no interim response', async () => {
    respond = ({ socket }) =>
      socket.write('HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
    expect((await send(head('GET /w/x HTTP/1.0'))).text).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
  });

  it('the head of a request reaches the upstream before its body', async () => {
    respond = () => undefined;
    const { socket } = caller();
    socket.write(head('POST /w/x', 'Content-Length: 5'));
    await waitFor(() => connections.length === 1 && received().endsWith('\r\n\r\n'));
    socket.destroy();
  });

  it('an error response to an upload is relayed while the body is still sent, 20 of 20', async () => {
    const body = Buffer.alloc(8_000_000, 'x');
    respond = ({ socket }) => {
      // Answers at the first bytes, and closes with the rest unread.
      socket.removeAllListeners('data');
      socket.end('HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlong', () =>
        socket.destroy(),
      );
    };
    for (let i = 0; i < 20; i++) {
      const { status, body: text } = await send(
        Buffer.concat([Buffer.from(head('POST /w/x', `Content-Length: ${body.length}`)), body]),
        'long',
      );
      expect([status, text]).toEqual([413, 'long']);
    }
  });

  it('a caller that expects 100 Continue gets the one of the upstream', async () => {
    respond = (it) => {
      if (it.text.endsWith('\r\n\r\n')) it.socket.write('HTTP/1.1 100 Continue\r\n\r\n');
      if (it.text.endsWith('12345')) it.socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
    };
    const { socket, text } = caller();
    socket.write(head('POST /w/x', 'Content-Length: 5', 'Expect: 100-continue'));
    await waitFor(() => text() === 'HTTP/1.1 100 Continue\r\n\r\n');
    expect(received()).toMatch(/expect: 100-continue\r\n/);
    socket.write('12345');
    await waitFor(() => text().endsWith('ok'));
    socket.destroy();
  });

  it('a caller that expects 100 Continue gets the final response of an upstream that does not want the body', async () => {
    respond = ({ socket }) => socket.write('HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno');
    const { text } = await send(head('POST /w/x', 'Content-Length: 5', 'Expect: 100-continue'), 'no');
    expect(text).toMatch(/^HTTP\/1\.1 403 Forbidden\r\n/);
    expect(text).toContain('connection: close');
  });

  it('a caller that expects 100 Continue gets it when the upstream says nothing', async () => {
    respond = (it) => {
      if (it.text.endsWith('12345')) it.socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
    };
    const { socket, text } = caller();
    socket.write(head('POST /w/x', 'Content-Length: 5', 'Expect: 100-continue'));
    await waitFor(() => text() === 'HTTP/1.1 100 Continue\r\n\r\n');
    socket.write('12345');
    await waitFor(() => text().endsWith('ok'));
    socket.destroy();
  });
});

describe('the request id', () => {
  const origin = [`Origin: ${ORIGIN}`, 'Access-Control-Request-Method: GET'];
  it.each<[string, () => string]>([
    ['forwarded', () => head('GET /w/x', 'Connection: close')],
    ['of the gateway itself', () => head('OPTIONS *', 'Connection: close')],
    ['to a preflight', () => head('OPTIONS /w/x', ...origin, 'Connection: close')],
    ['without a token', () => 'GET /w/x HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n'],
    ['without a route', () => head('GET /nowhere', 'Connection: close')],
    ['to TRACE', () => head('TRACE /w/x', 'Connection: close')],
    ['to a bad target', () => head('GET /w/../x', 'Connection: close')],
    ['to a head that cannot be read', () => 'nonsense\n'],
    ['of health', () => head('GET /healthz', 'Connection: close')],
    ['of readiness', () => head('GET /readyz', 'Connection: close')],
    ['of whoami', () => head('GET /gateway/whoami', 'Connection: close')],
    ['of whoami without a token', () => 'GET /gateway/whoami HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n'],
    ['of the console', () => head('GET /', 'Connection: close')],
    ['of an upstream that is gone', () => head('GET /gone/x', 'Connection: close')],
  ])('is on the response, once: %s', async (_, bytes) => {
    const { text, body } = await send(bytes());
    const ids = text.match(/^x-request-id: .*$/gim);
    expect(ids).toEqual([expect.stringMatching(/^x-request-id: [0-9a-f-]{36}$/)]);
    const named = /"requestId":"([^"]*)"/.exec(body)?.[1];
    if (named !== undefined) expect(ids![0]).toContain(named);
  });

  it('is on the responses of the ops port', async () => {
    for (const path of ['/healthz', '/readyz', '/metrics', '/forward-auth', '/nowhere']) {
      const { text } = await raw(s.gateway.opsPort, head(`GET ${path}`, 'Connection: close'));
      expect(text.match(/^x-request-id: .*$/gim)).toHaveLength(1);
    }
  });

  it('of a trusted proxy is on the response of whoami too', async () => {
    const { headers, status } = await send(head('GET /gateway/whoami', 'X-Request-Id: edge-1', 'Connection: close'));
    expect([status, headers['x-request-id']]).toEqual([200, 'edge-1']);
  });

  it('is not on an interim response, whose final one has it', async () => {
    respond = ({ socket }) =>
      socket.write(
        'HTTP/1.1 103 Hints\r\nX-Request-Id: own\r\n\r\nHTTP/1.1 200 OK\r\nX-Request-Id: own\r\nContent-Length: 0\r\n\r\n',
      );
    const { text } = await send(head('GET /w/x', 'Connection: close'));
    expect(text).not.toContain('own');
    expect(text).toMatch(
      /^HTTP\/1\.1 103 Hints\r\n\r\nHTTP\/1\.1 200 OK\r\n(?:.*\r\n)?x-request-id: [0-9a-f-]{36}\r\n/s,
    );
  });
});

describe('the end of a response', () => {
  it('with the connection becomes chunked for HTTP/1.1', async () => {
    respond = ({ socket }) => socket.end('HTTP/1.1 200 OK\r\n\r\nbody');
    const { text, headers } = await send(head('GET /w/x'), '0\r\n\r\n');
    expect(headers['transfer-encoding']).toBe('chunked');
    expect(text).toMatch(/\r\n\r\n4\r\nbody\r\n0\r\n\r\n$/);
  });

  it('of a chunked one is the end of the connection for HTTP/1.0', async () => {
    respond = ({ socket }) =>
      socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n3\r\n...\r\n0\r\n\r\n');
    const { body, headers } = await send(head('GET /w/x HTTP/1.0'));
    expect([body, headers['transfer-encoding'], headers['connection']]).toEqual(['body...', undefined, 'close']);
  });

  it('that comes too early breaks the connection of the caller', async () => {
    respond = ({ socket }) => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf');
    const { status, body } = await send(head('GET /w/x'));
    expect([status, body]).toEqual([200, 'half']);
    respond = ({ socket }) => socket.end('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n');
    expect((await send(head('GET /w/x'))).body).toBe('4\r\nhalf\r\n');
  });

  it('that comes too early is a fault for HTTP/1.0 too, whose end is that of the connection', async () => {
    respond = ({ socket }) => socket.end('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n');
    await expect(send(head('GET /w/x HTTP/1.0'))).rejects.toMatchObject({ code: 'ECONNRESET' });
  });

  it.each([
    ['HEAD', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n', 200, '5'],
    ['GET', 'HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n', 304, '5'],
    ['GET', 'HTTP/1.1 204 No Content\r\n\r\n', 204, undefined],
  ])('%s %s has no body', async (method, response, status, length) => {
    respond = ({ socket }) => socket.write(response);
    const first = await send(head(`${method} /w/x`), '\r\n\r\n');
    expect([first.status, first.headers['content-length']]).toEqual([status, length]);
    // The same connection to the upstream serves the next request.
    expect((await send(head(`${method} /w/x`, 'Connection: close'))).status).toBe(status);
    expect(connections).toHaveLength(1);
  });

  it.each([
    ['both lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
    ['two lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok'],
    ['a length with a sign', 'HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok'],
    ['another transfer coding', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n'],
    ['a folded header', 'HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 2\r\n\r\nok'],
    ['a bare LF', 'HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok'],
    ['a bare CR', 'HTTP/1.1 200 OK\r\nX-A: a\rb\r\nContent-Length: 2\r\n\r\nok'],
    ['a control character', 'HTTP/1.1 200 OK\r\nX-A: a\x07b\r\nContent-Length: 2\r\n\r\nok'],
    ['a space before a colon', 'HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok'],
    ['another version', 'HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok'],
    ['a status of two digits', 'HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok'],
    ['a switch of protocols unasked', 'HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n'],
    ['a head without an end', `HTTP/1.1 200 OK\r\nX-A: ${'x'.repeat(70_000)}`],
    ['nonsense', '\x16\x03\x01\x02\r\n\r\n'],
  ])('in doubt is 502, and its connection is not used again: %s', async (_, response) => {
    respond = ({ socket }) => socket.write(response, 'latin1');
    const { status, body } = await send(head('GET /w/x', 'Connection: close'));
    expect([status, JSON.parse(body).code]).toEqual([502, 'bad_gateway']);
    await waitFor(() => connections[0]!.socket.destroyed || connections[0]!.socket.readableEnded);
  });

  it('bytes behind a response never reach the next request', async () => {
    respond = ({ socket }) =>
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil');
    for (let i = 0; i < 3; i++) expect((await send(head('GET /w/x', 'Connection: close'))).body).toBe('ok');
  });
});

describe('a request', () => {
  it('in absolute form is for the host in its target, whatever Host says', async () => {
    await send(head('GET http://other.example:81/w/x?q=1', 'Connection: close'));
    expect(received()).toMatch(/^GET \/w\/x\?q=1 HTTP\/1\.1\r\n/);
    expect(received()).toMatch(/x-forwarded-host: other\.example:81\r\n/);
  });

  it('OPTIONS * is answered with the methods', async () => {
    const { status, headers } = await send(head('OPTIONS *', 'Connection: close'));
    expect([status, headers['allow']]).toEqual([204, 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS']);
  });

  it.each([
    ['0', 204, undefined],
    ['1', 200, 'max-forwards: 0'],
    ['10', 200, 'max-forwards: 9'],
    ['-1', 400, undefined],
    ['x', 400, undefined],
  ])('OPTIONS is forwarded as often as Max-Forwards says: %s', async (value, status, forwarded) => {
    const response = await send(head('OPTIONS /w/x', `Max-Forwards: ${value}`, 'Connection: close'));
    expect(response.status).toBe(status);
    expect(connections[0]?.text.match(/max-forwards: .*/i)?.[0].trim()).toBe(forwarded);
  });

  it('that comes back to the gateway ends there', async () => {
    respond = (it) => {
      // An upstream that passes everything on to the gateway.
      const back = connect(s.gateway.port, '127.0.0.1', () => back.write(it.text, 'latin1'));
      back.on('data', (chunk) => it.socket.write(chunk));
    };
    const { status, body } = await send(head('GET /w/x', 'Connection: close'));
    expect([status, JSON.parse(body).detail]).toEqual([502, expect.stringMatching(/came back to the gateway/)]);
    expect(connections).toHaveLength(1);
  });

  it('that other gateways have forwarded names them all to the next', async () => {
    const other = randomUUID();
    await send(head('GET /w/x', `X-Latchkey-Passed-By: ${other}`, 'Connection: close'));
    expect(received().match(/x-latchkey-passed-by: .*/gi)).toEqual([
      expect.stringMatching(new RegExp(`^x-latchkey-passed-by: ${other}, [0-9a-f-]{36}$`)),
    ]);
  });

  it.each(['1.0', '1.1'])('of HTTP/%s is forwarded as HTTP/1.1, and so is the response to it', async (version) => {
    respond = ({ socket }) => socket.end('HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok');
    const { text } = await send(head(`GET /w/x HTTP/${version}`, 'Connection: close'));
    expect(text).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
    expect(received()).toMatch(/^GET \/w\/x HTTP\/1\.1\r\n/);
  });

  it('behind one with Connection: close is not read', async () => {
    const { text } = await send(head('GET /w/1', 'Connection: close') + head('GET /w/2'));
    expect(text.match(/HTTP\/1\.1 200/g)).toHaveLength(1);
    expect(received()).not.toContain('/w/2');
  });

  it('loses the fields that Connection names, in both directions', async () => {
    respond = ({ socket }) =>
      socket.write(
        'HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nX-End: 1\r\nKeep-Alive: timeout=9\r\nContent-Length: 2\r\n\r\nok',
      );
    const { headers } = await send(
      head('GET /w/x', 'Connection: close, x-gone', 'X-Gone: 1', 'X-Stays: 1', 'TE: trailers'),
    );
    expect(received()).toMatch(/X-Stays: 1\r\n/);
    expect(received()).not.toMatch(/x-gone|\r\nte:|\r\nconnection:/i);
    expect([headers['x-end'], headers['x-hop'], headers['keep-alive']]).toEqual(['1', undefined, undefined]);
  });

  it('with an encoded dot in a name is forwarded with the dot', async () => {
    await send(head('GET /w/report%2Epdf', 'Connection: close'));
    expect(received()).toMatch(/^GET \/w\/report\.pdf /);
  });

  it('OPTIONS without Access-Control-Request-Method is no preflight', async () => {
    const origin = `Origin: ${ORIGIN}`;
    const anonymous = `OPTIONS /w/x HTTP/1.1\r\nHost: gateway\r\n${origin}\r\nConnection: close\r\n\r\n`;
    expect((await send(anonymous)).status).toBe(401);
    expect((await send(head('OPTIONS /w/x', origin, 'Connection: close'))).status).toBe(200);
    const preflight = await send(anonymous.replace('Connection', 'Access-Control-Request-Method: GET\r\nConnection'));
    expect([preflight.status, preflight.headers['access-control-allow-origin']]).toEqual([204, ORIGIN]);
    expect(connections).toHaveLength(1);
  });

  it('CORS headers are on every response of a route', async () => {
    const origin = `Origin: ${ORIGIN}`;
    respond = ({ socket }) => socket.destroy();
    const broken = await send(head('GET /w/x', origin, 'Connection: close'));
    respond = () => undefined;
    const slow = await send(head('GET /w/x', origin, 'Connection: close'));
    const gone = await send(head('GET /gone/x', origin, 'Connection: close'));
    const malformed = await send(`${head('POST /w/x', origin, 'Transfer-Encoding: chunked')}zz\r\n`);
    expect([broken.status, slow.status, gone.status, malformed.status]).toEqual([502, 504, 502, 400]);
    for (const { headers } of [broken, slow, gone, malformed])
      expect(headers['access-control-allow-origin']).toBe(ORIGIN);
  });

  it('a WebSocket over HTTP/1.0 is an ordinary request', async () => {
    const { status } = await send(
      head(
        'GET /w/x HTTP/1.0',
        'Connection: Upgrade',
        'Upgrade: websocket',
        'Sec-WebSocket-Version: 13',
        'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
      ),
    );
    expect(status).toBe(200);
    expect(received()).not.toMatch(/upgrade/i);
  });

  it.each(['https', 'HTTPS', 'Https'])('X-Forwarded-Proto of a trusted proxy counts in any case: %s', async (proto) => {
    await send(head('GET /w/x', `X-Forwarded-Proto: ${proto}`, 'Connection: close'));
    expect(received()).toMatch(/x-forwarded-proto: https\r\n/);
  });

  it('trailers are dropped, and its chunks reach the upstream as they came', async () => {
    const body = '3\r\nabc\r\n2;\r\n';
    expect((await send(`${head('POST /w/x', 'Transfer-Encoding: chunked')}${body}`)).status).toBe(400);
    connections.splice(0);
    respond = (it) => {
      if (it.text.endsWith('0\r\n\r\n')) it.socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
    };
    const chunks = '3\r\nabc\r\n0a\r\n0123456789\r\n0\r\nX-Latchkey-Owner: evil\r\n\r\n';
    const { status } = await send(`${head('POST /w/x', 'Transfer-Encoding: chunked', 'Connection: close')}${chunks}`);
    expect(status).toBe(200);
    expect(received()).toMatch(/\r\n\r\n3\r\nabc\r\n0a\r\n0123456789\r\n0\r\n\r\n$/);
  });

  it('requests sent at once are answered in their order', async () => {
    respond = (it) => {
      const path = /^GET (\S+)/.exec(it.text)?.[1];
      it.text = '';
      it.socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${path!.length}\r\n\r\n${path}`);
    };
    const { text } = await send(head('GET /w/1') + head('GET /w/2') + head('GET /w/3', 'Connection: close'));
    expect(text.match(/\/w\/\d/g)).toEqual(['/w/1', '/w/2', '/w/3']);
    expect(connections).toHaveLength(1);
  });

  it('is parsed alike however its bytes are split', async () => {
    respond = (it) => {
      if (!it.text.endsWith('0\r\n\r\n')) return;
      it.socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${it.text.length}\r\n\r\n${it.text}`);
      it.text = '';
    };
    const bytes = `${head('POST /w/x', 'Transfer-Encoding: chunked', 'X-A: b')}5\r\nhello\r\n0\r\n\r\n`;
    const expected = (await send(bytes, '0\r\n\r\n')).body.replace(/x-request-id: .*/, '');
    for (let i = 1; i < bytes.length; i += 7) {
      const { socket, text } = caller();
      socket.setNoDelay(true);
      socket.write(bytes.slice(0, i));
      await new Promise((resolve) => setImmediate(resolve));
      socket.write(bytes.slice(i));
      await waitFor(() => text().endsWith('0\r\n\r\n'));
      expect(
        text()
          .slice(text().indexOf('\r\n\r\n') + 4)
          .replace(/x-request-id: .*/, ''),
      ).toBe(expected);
      socket.destroy();
    }
  });
});

describe('a stale connection', () => {
  it.each(['GET', 'PUT'])('%s without a body is sent once more over a new one', async (method) => {
    await send(head('GET /w/x'), 'ok');
    expect(connections).toHaveLength(1);
    let asked = 0;
    respond = ({ socket }) => {
      if (++asked === 1) socket.destroy();
      else socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
    };
    expect((await send(head(`${method} /w/x`, 'Connection: close'))).status).toBe(200);
    expect(asked).toBe(2);
  });

  it('POST is not sent twice', async () => {
    await send(head('GET /w/x'), 'ok');
    let asked = 0;
    respond = ({ socket }) => {
      asked++;
      socket.destroy();
    };
    expect((await send(head('POST /w/x', 'Connection: close'))).status).toBe(502);
    expect(asked).toBe(1);
  });

  it('one that is new is none: GET is not sent twice', async () => {
    let asked = 0;
    respond = ({ socket }) => {
      asked++;
      socket.destroy();
    };
    expect((await send(head('GET /w/x', 'Connection: close'))).status).toBe(502);
    expect(asked).toBe(1);
  });

  it('one over which something came is none: GET is not sent twice', async () => {
    await send(head('GET /w/x'), 'ok');
    let asked = 0;
    respond = ({ socket }) => {
      asked++;
      socket.end('HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 2');
    };
    expect((await send(head('GET /w/x', 'Connection: close'))).text).toMatch(
      /^HTTP\/1\.1 103 .*\r\n\r\nHTTP\/1\.1 502 /s,
    );
    expect(asked).toBe(1);
  });

  it('an idle connection that the upstream closes is not used again', async () => {
    await send(head('GET /w/x'), 'ok');
    connections[0]!.socket.end();
    await waitFor(() => connections[0]!.socket.destroyed || connections[0]!.socket.closed);
    expect((await send(head('POST /w/x', 'Connection: close'))).status).toBe(200);
  });
});

describe('what a caller does', () => {
  it('leaving ends the request at the upstream', async () => {
    respond = () => undefined;
    const { socket } = caller();
    socket.write(head('GET /w/x'));
    await waitFor(() => connections.length === 1 && received().endsWith('\r\n\r\n'));
    const ended = new Promise((resolve) => connections[0]!.socket.once('end', resolve));
    socket.destroy();
    await ended;
  });

  it('reading slowly slows the upstream down, and nothing is lost', async () => {
    const size = 40_000_000;
    let sent = 0;
    respond = ({ socket }) => {
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n`);
      const pump = () => {
        while (sent < size) {
          const piece = Buffer.alloc(Math.min(65_536, size - sent), sent % 251);
          sent += piece.length;
          if (!socket.write(piece)) return void socket.once('drain', pump);
        }
      };
      pump();
    };
    const socket = connect(s.gateway.port, '127.0.0.1');
    let got = 0;
    socket.on('data', (chunk) => {
      got += chunk.length;
    });
    socket.write(head('GET /w/x'));
    await waitFor(() => got > 0);
    socket.pause();
    await waitFor(async () => {
      const before = sent;
      await new Promise((resolve) => setTimeout(resolve, 200));
      return sent === before;
    });
    expect(sent).toBeLessThan(size / 2);
    socket.resume();
    await waitFor(() => got > size, { timeoutMs: 30_000 });
    socket.destroy();
  });
});
