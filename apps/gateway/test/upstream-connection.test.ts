import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { waitFor } from '@latchkey/testing';
import type { ResponseSink } from '../src/engine/index.js';
import { UpstreamPool } from '../src/engine/upstream-pool.js';
import { HeadScan } from '../src/http/index.js';
import { POLICY } from './differential/ours.js';

let server: Server;
let pool: UpstreamPool;
let connections: Socket[];
/** Called with each request that reaches the upstream. */
let respond: (socket: Socket, connection: number) => void;

beforeEach(async () => {
  connections = [];
  server = createServer((socket) => {
    const connection = connections.push(socket) - 1;
    socket.on('data', () => respond(socket, connection));
    socket.on('error', () => socket.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  pool = new UpstreamPool(new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}`));
});
afterEach(async () => {
  pool.close();
  for (const socket of connections) socket.destroy();
  await new Promise((resolve) => server.close(resolve));
});

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';

/** Sends a request and resolves to its response's body, or how it failed. */
function send(method = 'GET', complete = true, content = ''): Promise<string> {
  return new Promise((resolve) => {
    let body = '';
    const sink: ResponseSink = {
      method,
      policy: POLICY,
      wantsContent: () => true,
      onInterim: () => undefined,
      onResponse: () => undefined,
      onData: (buffer, start, end) => {
        body += buffer.toString('latin1', start, end);
      },
      onEnd: () => resolve(body),
      onUpgrade: () => resolve('upgrade'),
      onFailure: ({ kind }) => resolve(kind),
      onDrain: () => undefined,
    };
    pool.send(sink, `${method} / HTTP/1.1\r\nhost: g\r\n\r\n${content}`, complete, false);
  });
}

/** Takes a response and fails at one place. */
function sendToFailing(at: 'onInterim' | 'onResponse' | 'onData'): Promise<string> {
  return new Promise((resolve) => {
    const fail = () => {
      throw new Error(`failed ${at}`);
    };
    const sink: ResponseSink = {
      method: 'GET',
      policy: POLICY,
      wantsContent: () => true,
      onInterim: () => undefined,
      onResponse: () => undefined,
      onData: () => undefined,
      onEnd: () => resolve('end'),
      onUpgrade: () => resolve('upgrade'),
      onFailure: ({ kind, reason }) => resolve(`${kind} ${/failed \w+/.exec(reason)?.[0]}`),
      onDrain: () => undefined,
      [at]: fail,
    };
    pool.send(sink, 'GET / HTTP/1.1\r\nhost: g\r\n\r\n', true, false);
  });
}

/** Two requests, one after the other. */
async function sendTwo(method = 'GET', complete = true): Promise<string[]> {
  return [await send(method, complete), await send()];
}

it('a connection carries another request after a complete response', async () => {
  respond = (socket) => socket.write(OK);
  expect([await sendTwo(), connections.length]).toEqual([['ok', 'ok'], 1]);
});

describe('a connection carries no other request', () => {
  it.each([
    ['bytes behind a response of known length', `${OK}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison`],
    ['bytes behind the last chunk', `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n${OK}`],
    ['an empty line behind a response', `${OK}\r\n`],
    ['a close', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok'],
    ['HTTP/1.0', 'HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok'],
  ])('after %s', async (_, first) => {
    respond = (socket, connection) => socket.write(connection === 0 ? first : OK);
    expect([await sendTwo(), connections.length]).toEqual([['ok', 'ok'], 2]);
  });

  it('after a response that came before the request was complete', async () => {
    respond = (socket) => socket.write(OK);
    expect([await sendTwo('POST', false), connections.length]).toEqual([['ok', 'ok'], 2]);
  });

  it('after a response that came before the request had left', async () => {
    respond = (socket, connection) => {
      if (connection > 0) return void socket.write(OK);
      socket.pause();
      socket.write(OK);
    };
    expect([await send('POST', true, 'x'.repeat(20_000_000)), await send()]).toEqual(['ok', 'ok']);
    expect(connections).toHaveLength(2);
  });

  it('after 204 with a length, whose body comes later', async () => {
    respond = (socket, connection) =>
      socket.write(connection === 0 ? 'HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\n' : OK);
    expect([await send('PUT'), await send(), connections.length]).toEqual(['', 'ok', 2]);
  });

  it('after bytes that no request asked for', async () => {
    respond = (socket) => socket.write(OK);
    expect(await send()).toBe('ok');
    const closed = new Promise((resolve) => connections[0]!.once('close', resolve));
    connections[0]!.write('HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison');
    await closed;
    expect([await send(), connections.length]).toEqual(['ok', 2]);
  });
});

describe('a response that is not well-formed fails', () => {
  it.each([
    ['both lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
    ['an empty line before it', `\r\n${OK}`],
    ['a chunk size that is none', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+2\r\nok\r\n0\r\n\r\n'],
    ['a head that is too long', `HTTP/1.1 200 OK\r\nA: ${'b'.repeat(70_000)}`],
    ['more interim responses than anyone sends', 'HTTP/1.1 103 Hints\r\n\r\n'.repeat(101)],
    ['another protocol', 'SSH-2.0-OpenSSH_9.2\r\n\r\n'],
  ])('%s', async (_, first) => {
    respond = (socket) => socket.write(first);
    expect(await send()).toBe('malformed');
  });
});

it.each(['onInterim', 'onResponse', 'onData'] as const)(
  'what takes a response and fails ends its exchange, and no other: %s',
  async (at) => {
    respond = (socket) => socket.write(`HTTP/1.1 103 Hints\r\n\r\n${OK}`);
    expect([await sendToFailing(at), await send(), connections.length]).toEqual([`internal failed ${at}`, 'ok', 2]);
  },
);

it('a response that ends early is lost, unless its end is that of the connection', async () => {
  respond = (socket, connection) =>
    socket.end(
      [
        'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok',
        'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n',
        'HTTP/1.1 200 OK\r\n\r\nok',
      ][connection]!,
    );
  expect([await send(), await send(), await send()]).toEqual(['lost', 'lost', 'ok']);
});

it('heads that come byte by byte, interim ones too, are read as whole ones, and each is scanned once', async () => {
  const head = `HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nA: ${'a'.repeat(3_000)}\r\n`;
  const response = `${head}Content-Length: 2\r\n\r\nok`;
  respond = (socket) => {
    socket.setNoDelay(true);
    let at = 0;
    const next = () => {
      socket.write(response[at++]!);
      if (at < response.length) setImmediate(next);
    };
    next();
  };
  const { scan } = HeadScan.prototype;
  let scans = 0;
  try {
    HeadScan.prototype.scan = function (this: HeadScan, ...rest: Parameters<typeof scan>) {
      scans++;
      return scan.apply(this, rest);
    };
    expect([await send(), await send(), connections.length]).toEqual(['ok', 'ok', 1]);
  } finally {
    HeadScan.prototype.scan = scan;
  }
  // Three heads each, the beginning of each a second time, and nothing behind the interim ones.
  expect(scans).toBeLessThanOrEqual(16);
});

it('responses that come interleaved over many connections, byte by byte, keep their own content', async () => {
  const bodyOf = (connection: number) => String.fromCharCode(97 + connection).repeat(300);
  respond = (socket, connection) => {
    const response = `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n12c\r\n${bodyOf(connection)}\r\n0\r\n\r\n`;
    socket.setNoDelay(true);
    let at = 0;
    const next = () => {
      socket.write(response[at++]!);
      if (at < response.length) setImmediate(next);
    };
    next();
  };
  const bodies = await Promise.all(Array.from({ length: 8 }, () => send()));
  expect([...bodies].sort()).toEqual(Array.from({ length: 8 }, (_, i) => bodyOf(i)));
});

it('what was written before a handshake of TLS failed is there to be sent elsewhere', async () => {
  const secure = new UpstreamPool(new URL(`https://127.0.0.1:${(server.address() as AddressInfo).port}`));
  let hello: Socket | undefined;
  respond = (socket) => {
    hello = socket;
  };
  const failed = Promise.withResolvers<void>();
  const sink = { method: 'POST', policy: POLICY, onDrain: () => undefined, onFailure: () => failed.resolve() };
  const connection = secure.send(sink as unknown as ResponseSink, 'POST / HTTP/1.1\r\n\r\n', false, false);
  connection.write(Buffer.from('one '));
  // The client's hello has arrived, so the connection is open below TLS.
  await waitFor(() => hello);
  connection.write(Buffer.from('two'));
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
  hello!.destroy();
  await failed.promise;
  expect([connection.connected, connection.unsent.toString()]).toEqual([false, 'one two']);
  secure.close();
});
