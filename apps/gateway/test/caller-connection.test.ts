import { HEAD_TIMEOUT_MS, KEEP_ALIVE_MS } from '../src/engine/caller-connection.js';
import type { CallerRequest } from '../src/engine/index.js';
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
    socket.tick(KEEP_ALIVE_MS + 1);
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
