import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { connect, type Socket } from 'node:net';
import { waitFor } from '@latchkey/testing';
import { WebSocket, WebSocketServer } from 'ws';
import { raw, type Stack, stack, type TestUpstream } from './stack.js';

let s: Stack;
let webSockets: WebSocketServer;
/** When the upstream accepts a handshake. */
let accepted = Promise.resolve();
beforeAll(async () => {
  s = await stack(
    (upstream) => `
routes:
  - { name: any, path: /any/*, upstream: "${upstream}", stripPrefix: /any, require: {}, timeoutMs: 600 }
  - { name: patient, path: /patient/*, upstream: "${upstream}", require: {}, timeoutMs: 60000 }
  - { name: open, path: /open/*, upstream: "${upstream}", public: true }
`,
    { BODY_IDLE_MS: '500' },
  );
  webSockets = new WebSocketServer({
    server: s.upstream.server,
    path: '/ws',
    verifyClient: (_, accept) => void accepted.then(() => accept(true)),
  });
  webSockets.on('connection', (socket) => {
    socket.send('hello');
    socket.on('message', (data, binary) => socket.send(data, { binary }));
  });
});
afterAll(async () => {
  webSockets.close();
  await s[Symbol.asyncDispose]();
});
beforeEach(() => {
  s.upstream.handler = (_req, res) => res.end('ok');
});

const bearer = (secret: string) => ({ authorization: `Bearer ${secret}` });

/** Opens a request and resolves with the response's head. */
async function open(path: string, secret: string, method = 'GET'): Promise<IncomingMessage> {
  const req = httpRequest(`${s.gateway.url}${path}`, { method, headers: bearer(secret) });
  req.end();
  const [response] = (await once(req, 'response')) as [IncomingMessage];
  response.on('error', () => undefined); // an aborted body is an error to the reader; the tests check `complete`
  return response;
}

/** Resolves also after an error, where `once` would reject. */
const closed = (response: IncomingMessage) => new Promise<void>((resolve) => response.once('close', () => resolve()));

const eventStream = (every = 0) => {
  s.upstream.handler = (_req, res) => {
    res.writeHead(200, { 'content-type': 'text/event-stream' });
    res.write('data: hello\n\n');
    const timer = every > 0 ? setInterval(() => res.write('data: tick\n\n'), every) : undefined;
    res.on('close', () => clearInterval(timer));
  };
};

describe('an event stream', () => {
  it('is forwarded event by event, and can be silent for longer than timeoutMs', async () => {
    eventStream();
    const { secret } = s.authority.issue();
    const response = await open('/any/events', secret);
    const [first] = (await once(response, 'data')) as [Buffer];
    expect(first.toString()).toBe('data: hello\n\n');
    await new Promise((resolve) => setTimeout(resolve, 1_200));
    expect(response.destroyed).toBe(false);
    response.destroy();
  });

  it('ends when its token is from before a restore that was noticed meanwhile', async () => {
    eventStream(20);
    const token = s.authority.issue();
    const response = await open('/any/events', token.secret);
    await once(response, 'data');
    response.resume();
    const ended = closed(response);
    await s.authority.restore(token, s.client);
    await ended;
    expect(response.complete).toBe(false);
  });

  it('ends when its token is revoked', async () => {
    eventStream(20);
    const token = s.authority.issue();
    const response = await open('/any/events', token.secret);
    await once(response, 'data');
    response.resume();
    const ended = closed(response);
    await s.authority.revoke(token, s.client);
    await ended;
    expect(response.complete).toBe(false);
    await waitFor(() => s.upstream.sockets.size === 0 || [...s.upstream.sockets].every((x) => x.destroyed));
  });

  it('ends when its token expires', async () => {
    eventStream(20);
    const { secret } = s.authority.issue({ expiresAtMs: Date.now() + 1_500 });
    const response = await open('/any/events', secret);
    response.resume();
    await closed(response);
    expect(response.complete).toBe(false);
  });

  it('is closed at the upstream when its caller disconnects', async () => {
    let left = false;
    s.upstream.handler = (req, res) => {
      res.writeHead(200, { 'content-type': 'text/event-stream' }).write('data: hello\n\n');
      req.on('close', () => {
        left = true;
      });
    };
    const response = await open('/any/events', s.authority.issue().secret);
    await once(response, 'data');
    response.destroy();
    await waitFor(() => left);
  });
});

const streamLines = (upstream: TestUpstream) => {
  upstream.handler = (_req, res) => {
    res.writeHead(200, { 'content-type': 'application/x-ndjson' });
    const timer = setInterval(() => res.write('{}\n'), 20);
    res.on('close', () => clearInterval(timer));
  };
};
/** Resolves once the only open exchange is watched. */
const watched = () =>
  waitFor(async () => {
    expect(await metrics()).toContain('latchkey_verifier{what="streams",service="gateway"} 1');
    return true;
  });

describe('a long response', () => {
  it.each([
    ['a route', '/patient/changes', () => s.upstream],
    ['the management API', '/v1/audit/export', () => s.api],
  ])('of %s ends when its token is revoked, like a stream', async (_, path, upstream) => {
    streamLines(upstream());
    const token = s.authority.issue();
    const response = await open(path, token.secret);
    expect(response.statusCode).toBe(200);
    response.resume();
    await watched();
    const ended = closed(response);
    await s.authority.revoke(token, s.client);
    await ended;
    expect(response.complete).toBe(false);
  });

  it('ends when its token is revoked although the wall clock was set back', async () => {
    streamLines(s.upstream);
    const token = s.authority.issue();
    const response = await open('/patient/changes', token.secret);
    response.resume();
    const { now } = Date;
    Date.now = () => now() - 3_600_000;
    try {
      await watched();
      const ended = closed(response);
      await s.authority.revoke(token, s.client);
      await ended;
    } finally {
      Date.now = now;
    }
  });

  it('of the management API reaches a caller that revokes its own token, after any wait', async () => {
    const { promise: effective, resolve: confirm } = Promise.withResolvers<void>();
    s.api.handler = (_req, res) => void effective.then(() => res.end('done'));
    const token = s.authority.issue();
    const response = open('/v1/tokens/self/revoke', token.secret, 'POST');
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    await s.authority.revoke(token, s.client);
    confirm();
    expect((await response).statusCode).toBe(200);
  });
});

describe('a long request body', () => {
  it.each([['without a length'], ['of a known length']])(
    '%s is not forwarded any further once its token is revoked: 401, and the connection closes',
    async (which) => {
      let bytes = 0;
      let left = false;
      s.upstream.handler = (req) => {
        req.on('data', (chunk: Buffer) => {
          bytes += chunk.length;
        });
        req.on('error', () => undefined);
        req.on('close', () => {
          left = true;
        });
      };
      const token = s.authority.issue();
      const chunked = which === 'without a length';
      const socket = connect(Number(new URL(s.gateway.url).port), '127.0.0.1');
      let received = '';
      socket.on('data', (chunk: Buffer) => {
        received += chunk.toString('latin1');
      });
      socket.on('error', () => undefined); // the connection can end in a reset
      socket.write(
        `POST /patient/upload HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token.secret}\r\n` +
          `${chunked ? 'transfer-encoding: chunked' : 'content-length: 1000000'}\r\n\r\n`,
      );
      const sending = setInterval(() => socket.write(chunked ? '4\r\nline\r\n' : 'line'), 20);
      const ended = new Promise<void>((resolve) => socket.once('close', () => resolve()));
      await waitFor(async () => (await metrics()).includes('latchkey_verifier{what="streams",service="gateway"} 1'));
      expect(bytes).toBeGreaterThan(0);
      await s.authority.revoke(token, s.client);
      await waitFor(() => left);
      const last = bytes;
      await ended;
      clearInterval(sending);
      expect(bytes).toBe(last);
      expect(received).toMatch(/^HTTP\/1\.1 401 /);
      expect(received).toContain('invalid_token');
    },
  );
});

describe('a pending response', () => {
  it('is 401 once its token is revoked, and the upstream is released', async () => {
    let left = false;
    s.upstream.handler = (req) => void req.on('close', () => (left = true));
    const token = s.authority.issue();
    const response = open('/patient/slow', token.secret);
    await watched();
    await s.authority.revoke(token, s.client);
    expect((await response).statusCode).toBe(401);
    await waitFor(() => left);
  });
});

const metrics = async () => (await fetch(`http://127.0.0.1:${s.gateway.opsPort}/metrics`)).text();

describe('a WebSocket', () => {
  const dial = (path: string, secret?: string) =>
    new WebSocket(`${s.gateway.url.replace('http', 'ws')}${path}`, secret ? { headers: bearer(secret) } : {});
  const refused = async (socket: WebSocket) => {
    const [, response] = (await once(socket, 'unexpected-response')) as [unknown, IncomingMessage];
    socket.on('error', () => undefined); // terminate() before the end of the handshake emits an error
    socket.terminate();
    return response;
  };

  it('forwards messages both ways, text and binary, small and large', async () => {
    const socket = dial('/any/ws', s.authority.issue().secret);
    const [hello] = await once(socket, 'message');
    expect(String(hello)).toBe('hello');
    for (const message of ['a', Buffer.alloc(200_000, 7), 'b'.repeat(70_000)]) {
      socket.send(message);
      const [echo, binary] = await once(socket, 'message');
      expect([Buffer.from(echo).equals(Buffer.from(message)), binary]).toEqual([true, Buffer.isBuffer(message)]);
    }
    socket.close(1000);
    const [code] = await once(socket, 'close');
    expect(code).toBe(1000);
  });

  it('is refused when its token is revoked before the upstream has accepted', async () => {
    const { promise, resolve: accept } = Promise.withResolvers<void>();
    accepted = promise;
    try {
      const token = s.authority.issue();
      const response = refused(dial('/any/ws', token.secret));
      await watched();
      await s.authority.revoke(token, s.client);
      expect((await response).statusCode).toBe(401);
    } finally {
      accept();
      accepted = Promise.resolve();
    }
  });

  it('has the identity headers at the upstream', async () => {
    const token = s.authority.issue();
    const joined = once(webSockets, 'connection');
    const socket = dial('/any/ws', token.secret);
    const [, request] = (await joined) as [unknown, IncomingMessage];
    expect(request.headers).toMatchObject({ 'x-latchkey-token-id': token.snapshot.id });
    expect(request.headers.authorization).toBeUndefined();
    await once(socket, 'open');
    socket.terminate();
  });

  it('is refused without a token', async () => {
    expect((await refused(dial('/any/ws'))).statusCode).toBe(401);
    expect((await refused(dial('/any/ws', 'nonsense'))).headers['www-authenticate']).toContain('invalid_token');
    expect((await refused(dial('/nowhere', 'nonsense'))).statusCode).toBe(404);
    // Not a route: Upgrade is ignored there (RFC 9110 section 7.8).
    expect((await refused(dial('/v1/tokens', 'nonsense'))).statusCode).toBe(200);
  });

  it("returns the upstream's own error", async () => {
    const response = await refused(dial('/any/other', s.authority.issue().secret));
    expect(response.statusCode).toBe(400);
  });

  it('is closed with 4401 when its token is revoked', async () => {
    const token = s.authority.issue();
    const socket = dial('/any/ws', token.secret);
    await once(socket, 'message');
    const closed = once(socket, 'close');
    await s.authority.revoke(token, s.client);
    const [code, reason] = await closed;
    expect([code, String(reason)]).toEqual([4401, 'token no longer accepted']);
    await waitFor(() => webSockets.clients.size === 0);
  });

  it('is closed with 4503 when its token is from before a restore that was noticed meanwhile', async () => {
    const token = s.authority.issue();
    const socket = dial('/any/ws', token.secret);
    await once(socket, 'message');
    const closed = once(socket, 'close');
    await s.authority.restore(token, s.client);
    const [code, reason] = await closed;
    expect([code, String(reason)]).toEqual([4503, 'restored']);
  });

  it('is refused with 503 when its token is from before an unsettled restore', async () => {
    const response = await refused(dial('/any/ws', s.authority.issue({ denial: 'restored' }).secret));
    expect([response.statusCode, response.headers['retry-after']]).toEqual([503, '1']);
  });

  it('is cut without a close frame when the upstream is inside a frame', async () => {
    const token = s.authority.issue();
    const joined = once(webSockets, 'connection');
    const socket = dial('/any/ws', token.secret);
    const [peer] = (await joined) as [WebSocket & { _socket: Socket }];
    await once(socket, 'message');
    peer._socket.write(Buffer.from([0x81, 0x7e, 0x40, 0x00, 0x61])); // header of a 16 KiB frame, one byte of payload
    await new Promise((resolve) => setTimeout(resolve, 100));
    const closed = once(socket, 'close');
    await s.authority.revoke(token, s.client);
    const [code] = await closed;
    expect(code).toBe(1006);
  });

  it('is closed at the upstream when its caller disconnects', async () => {
    const socket = dial('/any/ws', s.authority.issue().secret);
    await once(socket, 'message');
    socket.terminate();
    await waitFor(() => webSockets.clients.size === 0);
  });

  it('is the only protocol switched to, so that no second request follows an upgrade', async () => {
    const { secret } = s.authority.issue();
    const response = await raw(
      s.gateway.port,
      `GET /any/x HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer ${secret}\r\nConnection: Upgrade, close\r\nUpgrade: smuggle\r\n\r\nGET /open/x HTTP/1.1\r\nHost: g\r\n\r\n`,
    );
    expect(response.text.match(/HTTP\/1\.1 \d/g)).toHaveLength(1);
  });
});

describe('an upstream that', () => {
  const call = async (path = '/any/x', method = 'GET', body?: string) => {
    const { secret } = s.authority.issue();
    const response = await fetch(`${s.gateway.url}${path}`, {
      method,
      headers: bearer(secret),
      ...(body ? { body } : {}),
    });
    return { status: response.status, body: (await response.json()) as { code: string } };
  };

  it('closes the connection before it responds is 502, after one retry where that is safe', async () => {
    let requested = 0;
    s.upstream.handler = (req) => {
      requested++;
      req.socket.destroy();
    };
    expect(await call()).toMatchObject({ status: 502, body: { code: 'bad_gateway' } });
    expect(requested).toBe(2);
    requested = 0;
    expect(await call('/any/x', 'POST')).toMatchObject({ status: 502 });
    expect(await call('/any/x', 'PUT', 'body')).toMatchObject({ status: 502 });
    expect(requested).toBe(2);
  });

  it('had closed an idle connection gets the request on another', async () => {
    let requested = 0;
    s.upstream.handler = (req, res) => {
      if (++requested === 2) req.socket.destroy();
      else res.end('"ok"');
    };
    expect((await call()).status).toBe(200);
    expect((await call()).status).toBe(200);
    expect(requested).toBe(3);
  });

  it.each([
    ['does not speak HTTP', 'nonsense\r\n\r\n'],
    ['ends within the response head', 'HTTP/1.1 200 OK\r\nContent-Le'],
    ['sends two Content-Length', 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab'],
    [
      'sends Content-Length and chunks',
      'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    ],
    [
      'switches protocols without a request',
      'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n',
    ],
    ['folds a header', 'HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n'],
  ])('%s is 502', async (_, bytes) => {
    s.upstream.handler = (req) => req.socket.end(bytes);
    expect(await call('/any/x', 'POST')).toMatchObject({ status: 502 });
  });

  it('sends a head that is too large is 502', async () => {
    s.upstream.handler = (req) => req.socket.end(`HTTP/1.1 200 OK\r\nX: ${'x'.repeat(70_000)}\r\n\r\n`);
    expect(await call('/any/x', 'POST')).toMatchObject({ status: 502 });
  });

  it('sends nothing is 504 after timeoutMs', async () => {
    s.upstream.handler = () => undefined;
    expect(await call()).toMatchObject({ status: 504, body: { code: 'upstream_timeout' } });
  });

  it.each([
    ['fails within a body of known length', 'Content-Length: 100\r\n\r\nabc'],
    ['fails within a chunk', 'Transfer-Encoding: chunked\r\n\r\n64\r\nabc'],
    ['fails between chunks', 'Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n'],
  ])('%s leaves the response visibly incomplete', async (_, bytes) => {
    s.upstream.handler = (req) => {
      req.socket.write(`HTTP/1.1 200 OK\r\n${bytes}`);
      setTimeout(() => req.socket.destroy(), 50);
    };
    const response = await open('/any/x', s.authority.issue().secret, 'POST');
    response.resume();
    await closed(response);
    expect(response.complete).toBe(false);
  });

  it('stalls in the middle of a response is aborted after timeoutMs', async () => {
    s.upstream.handler = (_req, res) => res.writeHead(200, { 'content-length': 100 }).write('abc');
    const response = await open('/any/x', s.authority.issue().secret);
    response.resume();
    await closed(response);
    expect(response.complete).toBe(false);
  });

  it('responds before the body is complete has its response returned', async () => {
    s.upstream.handler = (req, res) => {
      res.writeHead(413).end('"no"');
      req.resume();
    };
    expect((await call('/any/x', 'POST', 'x'.repeat(5_000_000))).status).toBe(413);
  });

  it('sends interim responses has its final response returned', async () => {
    s.upstream.handler = (req) =>
      req.socket.write(
        'HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\n"ok"',
      );
    expect(await call()).toMatchObject({ status: 200, body: 'ok' });
  });

  it('responds to HEAD, or with 204 or 304, has its response returned without a body', async () => {
    const { secret } = s.authority.issue();
    const get = (method: string) =>
      raw(
        s.gateway.port,
        `${method} /any/x HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer ${secret}\r\nConnection: close\r\n\r\n`,
      );
    s.upstream.handler = (_req, res) => res.writeHead(204).end();
    expect(await get('GET')).toMatchObject({ status: 204, body: '' });
    s.upstream.handler = (_req, res) => res.writeHead(304, { etag: '"1"' }).end();
    expect(await get('GET')).toMatchObject({ status: 304, body: '', headers: { etag: '"1"' } });
    s.upstream.handler = (_req, res) => res.writeHead(200, { 'content-length': 1234 }).end();
    expect(await get('HEAD')).toMatchObject({ status: 200, body: '', headers: { 'content-length': '1234' } });
  });
});

describe('a caller that', () => {
  const dial = async (bytes: string): Promise<Socket> => {
    const socket = connect(s.gateway.port, '127.0.0.1');
    await once(socket, 'connect');
    socket.write(bytes);
    return socket;
  };
  const head = (line: string, ...more: string[]) => {
    const { secret } = s.authority.issue();
    return `${[line, 'Host: g', `Authorization: Bearer ${secret}`, ...more].join('\r\n')}\r\n\r\n`;
  };

  it('disconnects before the response aborts the request to the upstream', async () => {
    let requested = false;
    let left = false;
    s.upstream.handler = (req) => {
      requested = true;
      req.on('close', () => {
        left = true;
      });
    };
    const socket = await dial(head('GET /patient/x HTTP/1.1'));
    await waitFor(() => requested);
    socket.destroy();
    await waitFor(() => left);
  });

  it('disconnects during the lookup of its token causes no request to the upstream', async () => {
    const lookup = Promise.withResolvers<void>();
    s.authority.lookupDelay = lookup.promise;
    const lookups = s.authority.lookups.length;
    const seen = s.upstream.seen.length;
    const socket = await dial(head('GET /patient/x HTTP/1.1'));
    await waitFor(() => s.authority.lookups.length > lookups);
    socket.destroy();
    await once(socket, 'close');
    s.authority.lookupDelay = undefined;
    lookup.resolve();
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(s.upstream.seen.length).toBe(seen);
  });

  it('stalls in its body gets 408, and the upstream is released', async () => {
    let left = false;
    s.upstream.handler = (req) => {
      req.on('error', () => undefined); // the gateway aborts the request
      req.on('close', () => {
        left = true;
      });
      req.resume();
    };
    const response = await raw(s.gateway.port, `${head('POST /patient/x HTTP/1.1', 'Content-Length: 100')}abc`);
    expect([response.status, JSON.parse(response.body).code]).toEqual([408, 'request_timeout']);
    await waitFor(() => left);
  });

  it('waits for 100-continue gets it only once its token was checked', async () => {
    s.upstream.handler = (req, res) => req.resume().on('end', () => res.end('ok'));
    const socket = await dial(
      head('POST /any/x HTTP/1.1', 'Expect: 100-continue', 'Content-Length: 3', 'Connection: close'),
    );
    let text = '';
    socket.setEncoding('latin1').on('data', (chunk) => {
      text += chunk;
    });
    await waitFor(() => text.includes('100 Continue'));
    socket.write('abc');
    await once(socket, 'close');
    expect(text).toContain('HTTP/1.1 200');
    const refused = await raw(
      s.gateway.port,
      'POST /any/x HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\n',
    );
    expect(refused.status).toBe(401);
  });

  it('sends its head too slowly gets 408', async () => {
    const socket = connect(s.gateway.port, '127.0.0.1');
    let text = '';
    socket.setEncoding('latin1').on('data', (chunk) => {
      text += chunk;
    });
    socket.on('error', () => undefined); // writes continue after the close
    const timer = setInterval(() => socket.write('X'), 300);
    socket.write('GET /open/x HTTP/1.1\r\nHost: g\r\nX-Slow: ');
    await once(socket, 'close');
    clearInterval(timer);
    expect(text).toContain('HTTP/1.1 408');
    expect(text).toContain('request_timeout');
  });

  it('keeps sending a refused body is disconnected', async () => {
    const socket = connect(s.gateway.port, '127.0.0.1');
    socket.on('error', () => undefined); // writes continue after the close
    let text = '';
    socket.setEncoding('latin1').on('data', (chunk) => {
      text += chunk;
    });
    socket.write('POST /any/x HTTP/1.1\r\nHost: g\r\nContent-Length: 1000000000\r\n\r\n');
    const timer = setInterval(() => socket.write('x'.repeat(1000)), 50);
    // `once` would reject after a reset, which writes after the close can cause.
    await new Promise<void>((resolve) => socket.once('close', () => resolve()));
    clearInterval(timer);
    expect(text).toContain('HTTP/1.1 401');
  });

  it('pipelines requests gets the responses in order', async () => {
    s.upstream.handler = (req, res) => {
      const slow = req.url === '/1';
      setTimeout(() => res.end(`[${req.url}]`), slow ? 100 : 0);
    };
    const response = await raw(
      s.gateway.port,
      head('GET /any/1 HTTP/1.1') + head('GET /any/2 HTTP/1.1') + head('GET /any/3 HTTP/1.1', 'Connection: close'),
    );
    expect(response.text.match(/\[[^\]]+\]/g)).toEqual(['[/1]', '[/2]', '[/3]']);
  });
});

describe('bodies', () => {
  const MIB = 1024 * 1024;

  it('of responses wait for a slow reader: memory stays bounded', async () => {
    const total = 200 * MIB;
    let written = 0;
    s.upstream.handler = (_req, res) => {
      const piece = Buffer.alloc(MIB, 1);
      const more = () => {
        while (written < total) {
          written += piece.length;
          if (!res.write(piece)) return void res.once('drain', more);
        }
        res.end();
      };
      more();
    };
    const response = await open('/patient/big', s.authority.issue().secret);
    response.pause();
    await new Promise((resolve) => setTimeout(resolve, 800));
    // In transit: socket buffers of the kernel on three connections, and a few of node's.
    expect(written).toBeLessThan(40 * MIB);
    let read = 0;
    for await (const chunk of response) read += (chunk as Buffer).length;
    expect(read).toBe(total);
  });

  it('of requests wait for a slow upstream', async () => {
    const released = Promise.withResolvers<void>();
    s.upstream.handler = (req, res) => {
      let size = 0;
      req.pause();
      void released.promise.then(() =>
        req
          .on('data', (chunk: Buffer) => {
            size += chunk.length;
          })
          .resume(),
      );
      req.on('end', () => res.end(String(size)));
    };
    const total = 100 * MIB;
    const req = httpRequest(`${s.gateway.url}/patient/big`, {
      method: 'POST',
      headers: { ...bearer(s.authority.issue().secret), 'content-length': total },
    });
    const responded = once(req, 'response') as Promise<[IncomingMessage]>;
    const piece = Buffer.alloc(MIB, 2);
    let written = 0;
    const more = () => {
      while (written < total) {
        written += piece.length;
        if (!req.write(piece)) return void req.once('drain', more);
      }
      req.end();
    };
    more();
    await new Promise((resolve) => setTimeout(resolve, 800));
    expect(written).toBeLessThan(40 * MIB);
    released.resolve();
    const [response] = await responded;
    let text = '';
    for await (const chunk of response.setEncoding('utf8')) text += chunk;
    expect(text).toBe(String(total));
  });

  it('without a length are sent in chunks, both ways', async () => {
    s.upstream.handler = (req, res) => req.pipe(res.writeHead(200));
    const { secret } = s.authority.issue();
    const response = await raw(
      s.gateway.port,
      `POST /any/x HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer ${secret}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nxyz\r\n2\r\nuv\r\n0\r\nX-Trailer: dropped\r\n\r\n`,
    );
    expect(s.upstream.lastHeader('transfer-encoding')).toBe('chunked');
    expect(response.headers['transfer-encoding']).toBe('chunked');
    expect(response.body.replace(/[^u-z]/g, '')).toBe('xyzuv');
  });
});
