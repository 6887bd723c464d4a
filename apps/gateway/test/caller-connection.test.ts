import {
  AHEAD_MS,
  FIRST_REQUEST_MS,
  HEAD_TIMEOUT_MS,
  KEEP_ALIVE_MS,
  REQUEST_TIMEOUT_MS,
  UNREAD_MS,
  UNWANTED_BODY_MS,
} from '../src/engine/caller-limits.js';
import type { CallerRequest } from '../src/engine/index.js';
import { HeadScan } from '../src/http/index.js';
import { CallerSocket } from './caller-socket.js';

const GET = 'GET /a HTTP/1.1\r\nHost: g\r\n\r\n';

/** A connection whose requests wait for their responses. */
function connection() {
  const open: CallerRequest[] = [];
  const socket = new CallerSocket((request) => open.push(request));
  return { socket, open, respond: () => open.shift()!.respond(200, 'OK', '') };
}

describe('pipelined requests', () => {
  it('are taken one by one, wherever the stream is split', () => {
    const stream = `POST /1 HTTP/1.1\r\nHost: g\r\nContent-Length: 3\r\n\r\nabc\r\n${GET}POST /3 HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n${GET}`;
    for (let cut = 0; cut <= stream.length; cut++) {
      const { socket, open } = connection();
      const targets: string[] = [];
      for (const part of [stream.slice(0, cut), stream.slice(cut)]) {
        socket.receive(part);
        for (let request = open.shift(); request; request = open.shift()) {
          expect(open).toEqual([]);
          targets.push(request.head.target);
          request.respond(200, 'OK', '');
        }
      }
      // The third has a body that is not awaited: its connection closes.
      expect(targets).toEqual(['/1', '/a', '/3']);
      expect(socket.ended).toBe(true);
    }
  });

  it('of more bytes than are kept do not stop the connection, wherever the stream is split', () => {
    const { socket, respond, open } = connection();
    // The first waits for its response while more come than are kept; they end within a head.
    for (let i = 0; i < 4_000 && !socket.isPaused(); i++) socket.receive(GET);
    socket.receive(GET.slice(0, 20));
    expect(socket.isPaused()).toBe(true);
    while (open.length > 0) respond();
    expect(socket.isPaused()).toBe(false);
    socket.receive(GET.slice(20));
    expect(open).toHaveLength(1);
  });

  it('wait while the caller does not read the responses to those before', () => {
    const { socket, respond, open } = connection();
    socket.receive(GET + GET);
    socket.writableNeedDrain = true;
    respond();
    expect(open).toEqual([]);
    for (let i = 0; i < 4_000; i++) if (!socket.isPaused()) socket.receive(GET);
    expect([socket.isPaused(), open.length]).toEqual([true, 0]);
    socket.tick(HEAD_TIMEOUT_MS + 1);
    expect(socket.written).not.toContain('408');
    socket.writableNeedDrain = false;
    socket.emit('drain');
    expect(open).toHaveLength(1);
    for (let rest = 0; open.length > 0; rest++) {
      respond();
      expect(rest).toBeLessThan(4_000);
    }
    expect(socket.isPaused()).toBe(false);
  });

  it('are given up when the caller never reads', () => {
    const { socket, respond, open } = connection();
    socket.receive(GET + GET);
    socket.writableNeedDrain = true;
    respond();
    socket.tick(UNREAD_MS);
    expect(socket.ended).toBe(false);
    socket.tick(UNREAD_MS + 1);
    expect([socket.ended, open.length]).toEqual([true, 0]);
  });
});

describe('a surplus of connections', () => {
  it('closes so many after their next response, and no more', () => {
    const { socket, respond } = connection();
    socket.receive(GET);
    respond();
    expect([socket.ended, socket.written.includes('connection: close')]).toEqual([false, false]);
    socket.deps.surplus = 1;
    socket.receive(GET);
    respond();
    expect([socket.ended, socket.written.includes('connection: close')]).toEqual([true, true]);
    expect(socket.deps.surplus).toBe(0);
  });
});

describe('the time for a head', () => {
  it('begins with its first byte, not when the connection became idle', () => {
    const { socket, respond, open } = connection();
    socket.receive(GET);
    respond();
    socket.tick(KEEP_ALIVE_MS - 1_000);
    socket.receive(GET.slice(0, 9));
    socket.tick(KEEP_ALIVE_MS - 500);
    expect([socket.ended, socket.written.includes('408')]).toEqual([false, false]);
    socket.receive(GET.slice(9));
    expect(open).toHaveLength(1);
  });

  it('ends, however slowly more of it comes', () => {
    const { socket } = connection();
    socket.receive(GET.slice(0, 9));
    socket.tick(HEAD_TIMEOUT_MS - 1);
    socket.receive(GET.slice(9, 12));
    expect(socket.ended).toBe(false);
    socket.tick(HEAD_TIMEOUT_MS + 1);
    expect(socket.written).toMatch(/^HTTP\/1\.1 408 .*\r\nconnection: close\r\n/s);
    expect(socket.ended).toBe(true);
  });
});

describe('nothing behind a refused message is read', () => {
  it.each([
    ['both lengths', 'POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n'],
    ['a bare LF', 'GET / HTTP/1.1\nHost: g\r\n\r\n'],
    ['two empty lines', '\r\n\r\nGET / HTTP/1.1\r\nHost: g\r\n\r\n'],
    ['a long head', `GET / HTTP/1.1\r\nHost: g\r\nA: ${'b'.repeat(20_000)}\r\n\r\n`],
    ['a byte that is no head', '\x16\x03\x01'],
  ])('%s, wherever the stream is split', (_, bytes) => {
    const stream = bytes + GET;
    for (let cut = 0; cut < Math.min(stream.length, 200); cut++) {
      const { socket, open } = connection();
      socket.receive(stream.slice(0, cut));
      socket.receive(stream.slice(cut));
      socket.receive(GET);
      expect(open).toEqual([]);
      expect(socket.written.match(/HTTP\/1\.1 4\d\d /g)).toHaveLength(1);
      expect(socket.written).toContain('connection: close\r\n');
      expect(socket.ended).toBe(true);
    }
  });
});

describe('an empty line behind a request', () => {
  const POST = 'POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 3\r\n\r\nabc';

  it('leaves the connection as idle as it was', () => {
    const { socket, respond, open } = connection();
    socket.receive(POST);
    respond();
    socket.receive('\r\n');
    socket.tick(HEAD_TIMEOUT_MS + 1);
    expect([socket.written.includes('408'), socket.ended]).toEqual([false, false]);
    socket.receive(GET);
    expect(open).toHaveLength(1);
  });

  it('is ignored once, also when two come one by one', () => {
    const { socket, respond } = connection();
    socket.receive(POST);
    respond();
    for (const part of ['\r\n', '\r\n', GET]) socket.receive(part);
    expect(socket.written.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 400']);
  });

  it('is ignored behind each request', () => {
    const { socket, respond, open } = connection();
    for (let i = 0; i < 3; i++) {
      socket.receive(POST);
      respond();
      socket.receive('\r\n');
    }
    socket.receive(GET);
    expect(open).toHaveLength(1);
  });
});

describe('a response that ends the connection', () => {
  const CLOSING = 'GET / HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n';

  it('is not cut while the caller has still to read of it', () => {
    const { socket, respond } = connection();
    socket.receive(CLOSING);
    socket.writableLength = 100;
    respond();
    socket.tick(UNREAD_MS - 1);
    expect([socket.ended, socket.destroyed]).toEqual([true, false]);
    socket.drain();
    socket.tick(UNREAD_MS - 1 + UNWANTED_BODY_MS);
    expect(socket.destroyed).toBe(false);
    socket.tick(UNREAD_MS + UNWANTED_BODY_MS);
    expect([socket.destroyed, socket.wasReset]).toEqual([true, false]);
  });

  it('that is not read is given up, and the caller can see that', () => {
    const { socket, respond } = connection();
    socket.receive(CLOSING);
    socket.writableLength = 100;
    respond();
    socket.tick(UNREAD_MS + 1);
    expect([socket.destroyed, socket.wasReset]).toEqual([true, true]);
  });

  it('can be read by a caller that has ended its side meanwhile', () => {
    const { socket, respond } = connection();
    socket.receive(CLOSING);
    socket.writableLength = 100;
    respond();
    socket.emit('end');
    expect(socket.destroyed).toBe(false);
    socket.drain();
    socket.tick(UNWANTED_BODY_MS + 1);
    expect(socket.destroyed).toBe(true);
  });

  it('is followed by no other, when it came while the last of a body was read', () => {
    const { socket, open } = connection();
    const ended: string[] = [];
    socket.receive('POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 3\r\n\r\n');
    const request = open.shift()!;
    request.readBody({
      onBody: () => {
        request.closeAfter();
        request.respond(413, 'Too Large', '');
      },
      onBodyEnd: () => ended.push('body'),
      onBodyMalformed: () => undefined,
    });
    socket.receive(`abc${GET}`);
    socket.receive(GET);
    expect([open.length, ended, socket.ended]).toEqual([0, [], true]);
    expect(socket.written.match(/HTTP\/1\.1/g)).toHaveLength(1);
  });
});

it.each([
  ['its request', GET],
  ['a part of its body, which no one wants', 'POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 9\r\n\r\nabc'],
])('a caller that has sent %s and ends its side can read the response that was written', (_, bytes) => {
  const { socket, respond } = connection();
  socket.receive(bytes);
  socket.writableLength = 100;
  respond();
  socket.emit('end');
  expect([socket.ended, socket.destroyed]).toEqual([true, false]);
  socket.drain();
  socket.tick(UNWANTED_BODY_MS + 1);
  expect(socket.destroyed).toBe(true);
});

describe('a response of an unknown length, for HTTP/1.0,', () => {
  it.each<['close' | 'length', boolean]>([
    ['close', true],
    ['length', false],
  ])('that is broken off looks broken: framing %s, reset %j', (framing, wasReset) => {
    const { socket, open } = connection();
    socket.receive('GET / HTTP/1.0\r\n\r\n');
    const request = open.shift()!;
    request.begin(200, 'OK', '', framing, framing === 'length' ? 9 : -1, false, 'half');
    request.destroy();
    expect([socket.destroyed, socket.wasReset]).toEqual([true, wasReset]);
  });
});

it('a switch of protocols does not say that the connection closes', () => {
  const { socket, open } = connection();
  socket.receive('GET / HTTP/1.1\r\nHost: g\r\nUpgrade: websocket\r\nConnection: upgrade, close\r\n\r\n');
  open.shift()!.begin(101, 'Switching Protocols', 'connection: Upgrade\r\n', 'none', -1, true, '');
  expect(socket.written.match(/connection: .*/g)).toEqual(['connection: Upgrade']);
});

describe('what takes a request and fails', () => {
  it.each(['a piece of the body', 'a drain'])('ends its connection, and no other: %s', (what) => {
    const { socket, open } = connection();
    socket.faults = [];
    socket.receive('POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 3\r\n\r\n');
    const request = open.shift()!;
    const fail = () => {
      throw new Error('failed');
    };
    let closes = 0;
    request.responder = { onCallerClose: () => closes++, onCallerDrain: fail, onTimeout: () => undefined };
    request.readBody({ onBody: fail, onBodyEnd: () => undefined, onBodyMalformed: () => undefined });
    if (what === 'a drain') socket.drain();
    else socket.receive('abc');
    expect([socket.destroyed, socket.wasReset, closes]).toEqual([true, true, 1]);
    expect(socket.faults).toEqual([expect.objectContaining({ message: 'failed' })]);
  });
});

describe('a stop', () => {
  it('closes a connection that is idle', () => {
    const { socket, respond } = connection();
    socket.receive(GET);
    respond();
    socket.connection.closeWhenIdle();
    expect(socket.destroyed).toBe(true);
  });

  it('waits for a head that has begun, and closes after the response', () => {
    const { socket, respond } = connection();
    for (const part of [GET, GET.slice(0, 9)]) socket.receive(part);
    respond();
    socket.connection.closeWhenIdle();
    expect(socket.ended).toBe(false);
    socket.receive(GET.slice(9));
    respond();
    expect([socket.ended, socket.written.match(/connection: close/g)!.length]).toEqual([true, 1]);
  });

  it('waits for the first request of a new connection, but not for long', () => {
    const { socket, respond } = connection();
    socket.connection.closeWhenIdle();
    socket.receive(GET);
    respond();
    expect(socket.written).toContain('connection: close');
    const { socket: silent } = connection();
    silent.connection.closeWhenIdle();
    silent.tick(FIRST_REQUEST_MS - 1);
    expect(silent.destroyed).toBe(false);
    silent.tick(FIRST_REQUEST_MS);
    expect(silent.destroyed).toBe(true);
    const { socket: old } = connection();
    old.tick(FIRST_REQUEST_MS);
    old.connection.closeWhenIdle();
    expect(old.destroyed).toBe(true);
  });

  it('leaves the caller what it has still to read', () => {
    const { socket, respond } = connection();
    socket.receive(GET);
    socket.writableLength = 100;
    respond();
    socket.connection.closeWhenIdle();
    expect([socket.ended, socket.destroyed]).toEqual([true, false]);
  });

  it('closes the connection once the rest of a body was read', () => {
    const { socket, respond } = connection();
    socket.receive('POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 5\r\n\r\nab');
    respond();
    expect(socket.written).not.toContain('connection: close');
    socket.connection.closeWhenIdle();
    socket.receive(`cde${GET}`);
    expect([socket.ended, socket.written.match(/HTTP\/1\.1/g)!.length]).toEqual([true, 1]);
  });
});

it('a head that comes byte by byte is scanned once, not again with each byte', () => {
  const { socket, open } = connection();
  const { scan } = HeadScan.prototype;
  let scans = 0;
  try {
    HeadScan.prototype.scan = function (this: HeadScan, ...rest: Parameters<typeof scan>) {
      scans++;
      return scan.apply(this, rest);
    };
    for (const byte of `GET /1 HTTP/1.1\r\nHost: g\r\nA: ${'b'.repeat(16_000)}\r\n\r\n`) socket.receive(byte);
  } finally {
    HeadScan.prototype.scan = scan;
  }
  expect(open[0]!.head.header('a')).toHaveLength(16_000);
  // The second is the one that the others go on from.
  expect(scans).toBe(2);
});

describe('a caller that leaves while its connection is not read', () => {
  it('is noticed a minute later, although its response has no end', () => {
    const { socket, open } = connection();
    socket.receive(GET);
    const request = open.shift()!;
    request.begin(200, 'OK', 'content-type: text/event-stream\r\n', 'chunked', -1, false, '');
    while (!socket.isPaused()) socket.receive(GET);
    socket.tick(AHEAD_MS);
    expect(socket.isPaused()).toBe(true);
    socket.tick(AHEAD_MS + 1);
    expect(socket.isPaused()).toBe(false);
    // What has come is not kept any more, and the end is seen.
    for (let i = 0; i < 4_000; i++) socket.receive(GET);
    expect(socket.isPaused()).toBe(false);
    socket.emit('end');
    expect([socket.destroyed, request.isOver]).toEqual([true, true]);
  });

  it('but stays has its response in full, and its connection closes', () => {
    const { socket, open } = connection();
    socket.receive(GET);
    while (!socket.isPaused()) socket.receive(GET);
    socket.tick(AHEAD_MS + 1);
    socket.receive(GET);
    open.shift()!.respond(200, 'OK', '', 'body');
    expect([socket.written.match(/HTTP\/1\.1 200/g)!.length, open.length, socket.ended]).toEqual([1, 0, true]);
    expect(socket.written).toMatch(/connection: close\r\n\r\nbody$/);
  });
});

describe('a request that does not come in time', () => {
  const POST = 'POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 9\r\n\r\nabc';
  const responder = (onTimeout: () => void) => ({
    onCallerClose: () => undefined,
    onCallerDrain: () => undefined,
    onTimeout,
  });

  it('is 408 while no one reads its body, and its connection closes', () => {
    const { socket } = connection();
    socket.receive(POST);
    socket.tick(REQUEST_TIMEOUT_MS);
    expect(socket.written).toBe('');
    socket.tick(REQUEST_TIMEOUT_MS + 1);
    expect(socket.written).toMatch(/^HTTP\/1\.1 408 .*\r\nconnection: close\r\n/s);
    expect([socket.ended, socket.destroyed]).toEqual([true, false]);
  });

  it('is left to what responds', () => {
    const { socket, open } = connection();
    socket.receive(POST);
    let timeouts = 0;
    open[0]!.responder = responder(() => timeouts++);
    socket.tick(REQUEST_TIMEOUT_MS + 1);
    expect([timeouts, socket.written]).toEqual([1, '']);
    open[0]!.respond(408, 'Timeout', '');
    expect(socket.written).toContain('connection: close\r\n');
    expect(socket.ended).toBe(true);
  });

  it('gets nothing more once the response was complete, but can read that', () => {
    const { socket, respond } = connection();
    socket.receive(POST);
    socket.writableLength = 100;
    respond();
    socket.tick(UNWANTED_BODY_MS + 1);
    expect([socket.ended, socket.destroyed]).toEqual([true, false]);
    expect(socket.written.match(/HTTP\/1\.1/g)).toHaveLength(1);
    socket.drain();
    socket.tick(2 * UNWANTED_BODY_MS + 2);
    expect(socket.destroyed).toBe(true);
  });
});
