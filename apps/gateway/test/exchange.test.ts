import type { DenialReason } from '@latchkey/contracts';
import type { Logger } from '@latchkey/runtime';
import { REQUEST_TIMEOUT_MS } from '../src/engine/caller-limits.js';
import { UpstreamGroup } from '../src/engine/index.js';
import { EJECTED_AFTER, UpstreamHealth } from '../src/engine/upstream-health.js';
import {
  CALLER_STALL_MS,
  CONTINUE_MS,
  type Plan,
  UNTAKEN_BODY_MS,
  WATCHED_AFTER_MS,
} from '../src/handlers/exchange.js';
import { exchange, type FakeConnection, fakePool, TIMEOUT_MS } from './fake-exchange.js';

const GET = 'GET / HTTP/1.1\r\nHost: g\r\n\r\n';
const POST = 'POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 10\r\n\r\n';
const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n';

describe('a response whose end the caller has still to read', () => {
  it('is cut when its token becomes invalid', () => {
    let cut: ((reason: DenialReason) => void) | undefined;
    const { socket, connections, tick } = exchange(GET, {
      timeoutMs: 60_000,
      watch: (onCut) => {
        cut = onCut;
        return () => undefined;
      },
    });
    tick(WATCHED_AFTER_MS);
    socket.writableNeedDrain = true;
    connections[0]!.respond(OK, 'body', '');
    connections[0]!.sink.onEnd('');
    cut!('revoked');
    expect(socket.destroyed).toBe(true);
  });

  it('is given up when the caller reads nothing of it', () => {
    const { socket, connections, open, tick } = exchange(GET);
    socket.writableNeedDrain = true;
    connections[0]!.respond(OK, 'body', '');
    connections[0]!.sink.onEnd('');
    tick(CALLER_STALL_MS);
    expect([open.size, socket.destroyed]).toEqual([1, false]);
    tick(CALLER_STALL_MS + 1);
    expect([open.size, socket.destroyed]).toEqual([0, true]);
  });

  it('is over once it was read, and the next request is taken', () => {
    const { socket, connections, open } = exchange(GET + GET);
    socket.writableNeedDrain = true;
    connections[0]!.respond(OK, 'body', '');
    connections[0]!.sink.onEnd('');
    expect([open.size, connections.length]).toEqual([1, 1]);
    socket.drain();
    expect([open.size, connections.length]).toEqual([1, 2]);
  });

  it('loses nothing when more of the request comes meanwhile, which no one wants', () => {
    const { socket, connections, open } = exchange(POST);
    socket.writableNeedDrain = true;
    connections[0]!.respond(OK, 'body', '');
    connections[0]!.sink.onEnd('');
    const { written } = connections[0]!;
    socket.receive('01234');
    socket.receive('56789');
    socket.drain();
    expect([open.size, socket.destroyed, connections[0]!.written]).toEqual([0, false, written]);
    socket.receive(GET);
    expect(connections).toHaveLength(2);
  });
});

it('a body that turns out malformed does not cut a response that is complete', () => {
  const { socket, connections, open } = exchange('POST / HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n');
  socket.writableNeedDrain = true;
  connections[0]!.respond(OK, 'body', '');
  connections[0]!.sink.onEnd('');
  socket.receive('nonsense\r\n');
  expect(socket.destroyed).toBe(false);
  socket.drain();
  expect([open.size, socket.ended, socket.destroyed]).toEqual([0, true, false]);
});

describe('a request whose connection is lost before a response', () => {
  const lost = { kind: 'lost', reason: 'lost' } as const;

  it.each<[string, string, boolean, boolean, number]>([
    ['GET over a connection that was idle', GET, true, false, 2],
    ['GET over a new connection', GET, false, false, 1],
    ['GET over one that was idle and has brought something since', GET, true, true, 1],
    ['POST over a connection that was idle', POST, true, false, 1],
    ['GET with a body', POST.replace('POST', 'GET'), true, false, 1],
  ])('%s is sent %s', (_, head, reused, hasHeard, times) => {
    const { socket, connections } = exchange(head);
    Object.assign(connections[0]!, { reused, hasHeard });
    connections[0]!.sink.onFailure(lost);
    expect(connections).toHaveLength(times);
    expect(socket.written.includes('502')).toBe(times === 1);
  });

  it('is repeated only once', () => {
    const { socket, connections } = exchange(GET);
    for (let i = 0; i < 2; i++) {
      connections[i]!.reused = true;
      connections[i]!.sink.onFailure(lost);
    }
    expect([connections.length, socket.written.includes('502')]).toEqual([2, true]);
  });
});

describe('a caller that awaits 100 Continue', () => {
  const EXPECTS = 'POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n';

  it('gets it after a second of silence, however short the time for the response is', () => {
    const { socket, tick } = exchange(EXPECTS);
    tick(CONTINUE_MS);
    expect(socket.written).toBe('');
    tick(CONTINUE_MS + 1);
    expect(socket.written).toBe('HTTP/1.1 100 Continue\r\n\r\n');
  });
});

it('a handshake that waits for its upstream is ended by a stop, as a stream is', () => {
  const handshake = exchange('GET / HTTP/1.1\r\nHost: g\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n', {
    isUpgrade: true,
  });
  expect([...handshake.open].map(({ endless }) => endless)).toEqual([true]);
  expect([...exchange(GET).open].map(({ endless }) => endless)).toEqual([false]);
});

describe('a caller that leaves while its body waits for the upstream', () => {
  it('is given up after the time for the response, when there is none', () => {
    const { socket, connections, open, tick } = exchange(POST);
    socket.receive('01234');
    tick(TIMEOUT_MS);
    expect(open.size).toBe(1);
    tick(TIMEOUT_MS + 1);
    expect([open.size, connections[0]!.destroyed]).toEqual([0, true]);
    expect(socket.written).toMatch(/^HTTP\/1\.1 504 /);
  });

  it('is given up although its response is a stream, which can be silent', () => {
    const { socket, connections, open, tick } = exchange(POST);
    socket.receive('01234');
    connections[0]!.respond('HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n');
    tick(UNTAKEN_BODY_MS);
    expect(open.size).toBe(1);
    tick(UNTAKEN_BODY_MS + 1);
    expect([open.size, connections[0]!.destroyed, socket.destroyed]).toEqual([0, true, true]);
  });

  it.each(['is taken in the end', 'is complete'])('stays open when the body %s', (how) => {
    const { socket, connections, open, tick } = exchange(POST);
    socket.receive('01234');
    connections[0]!.respond('HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n');
    connections[0]!.sink.onDrain();
    if (how === 'is complete') socket.receive('56789');
    connections[0]!.sink.onDrain();
    tick(10 * UNTAKEN_BODY_MS);
    expect(open.size).toBe(1);
  });
});

describe('a request that does not come in time', () => {
  it.each([
    ['is 408, with the fields of its route', '', /^HTTP\/1\.1 408 .*\r\nx-extra: 1\r\n/s],
    ['breaks its response off', OK, /^HTTP\/1\.1 200 .*\r\n\r\n$/s],
  ])('%s, and its upstream is left', (_, response, expected) => {
    const { socket, connections, open, tick } = exchange(POST, { extra: 'x-extra: 1\r\n', timeoutMs: 1e9 });
    socket.receive('01234');
    connections[0]!.sink.onDrain();
    tick(1);
    if (response !== '') connections[0]!.respond(response);
    socket.tick(REQUEST_TIMEOUT_MS + 1);
    expect(socket.written).toMatch(expected);
    expect([open.size, connections[0]!.destroyed, socket.ended]).toEqual([0, true, true]);
  });
});

it('a body that was read before is not kept while its response, which can be a stream, is open', () => {
  const { connections, plan } = exchange(POST, { body: Buffer.from('read') });
  expect(connections[0]!.written).toMatch(/content-length: 4\r\n\r\nread$/);
  expect(plan.body).toBeUndefined();
});

it('a fault of the gateway is 500, not one of the upstream', () => {
  const { socket, connections } = exchange(GET);
  connections[0]!.sink.onFailure({ kind: 'internal', reason: 'failed' });
  expect(socket.written).toMatch(/^HTTP\/1\.1 500 /);
});

describe('a request to a route of several upstreams', () => {
  const logger = { info: () => undefined, warn: () => undefined } as unknown as Logger;
  const REFUSED = { kind: 'unreachable', reason: 'ECONNREFUSED' } as const;
  const LOST = { kind: 'lost', reason: 'ended' } as const;

  function toSeveral(head: string, count = 3, more: Partial<Plan> = {}) {
    const connections: FakeConnection[] = [];
    const healths = Array.from({ length: count }, (_, i) => new UpstreamHealth(`u${i}`, logger));
    const group = new UpstreamGroup(healths.map((health, i) => fakePool(`u${i}`, connections, health)));
    const it = exchange(head, { group, upstream: group.pick(0)!, ...more });
    const failures = () => healths.map(({ counts }) => counts.failures).sort();
    return { ...it, connections, healths, failures };
  }
  const hostOf = ({ written }: FakeConnection) => /host: (\S+)/.exec(written)![1];
  const refuse = (connection: FakeConnection, failure: typeof REFUSED | typeof LOST = REFUSED) => {
    connection.connected = false;
    connection.sink.onFailure(failure);
  };

  it.each(['GET', 'POST', 'PATCH'])('goes to each other one, once, while none can be reached: %s', (method) => {
    const { connections, socket, failures } = toSeveral(`${method} / HTTP/1.1\r\nHost: g\r\n\r\n`);
    for (let i = 0; i < 3; i++) refuse(connections[i]!);
    expect(connections.map(hostOf).sort()).toEqual(['u0', 'u1', 'u2']);
    expect(socket.written).toMatch(/^HTTP\/1\.1 502 /);
    expect(failures()).toEqual([1, 1, 1]);
  });

  it('goes to another one with what has come of its body, and the rest follows', () => {
    const { connections, socket } = toSeveral(POST);
    const sent = (i: number) => connections[i]!.written.split('\r\n\r\n')[1];
    socket.receive('0123');
    refuse(connections[0]!);
    expect([sent(1), connections[1]!.complete]).toEqual(['0123', false]);
    socket.receive('456789');
    refuse(connections[1]!);
    expect([sent(2), connections[2]!.complete]).toEqual(['0123456789', true]);
    expect(connections.every(({ written }) => written.includes('content-length: 10\r\n'))).toBe(true);
    connections[2]!.respond(OK, 'body', '');
    connections[2]!.sink.onEnd('');
    expect(socket.written).toMatch(/^HTTP\/1\.1 200 (?:.|\r\n)*body$/);
  });

  it('goes to another one with a body that was read before, in its own length', () => {
    const { connections } = toSeveral(`${POST}0123456789`, 2, { body: Buffer.from('shorter') });
    refuse(connections[0]!);
    expect(connections[1]!.written.replace(/host: \S+/, '')).toBe(connections[0]!.written.replace(/host: \S+/, ''));
    expect(connections[1]!.written).toMatch(/content-length: 7\r\n\r\nshorter$/);
    expect(connections[1]!.complete).toBe(true);
  });

  it('goes to no other one once a connection was open, though nothing came back', () => {
    const { connections, socket, failures } = toSeveral(GET);
    connections[0]!.sink.onFailure(LOST);
    expect([connections.length, failures()]).toEqual([1, [0, 0, 1]]);
    expect(socket.written).toMatch(/^HTTP\/1\.1 502 /);
  });

  it('is repeated over a new connection to the same one when a kept connection was stale, which is no failure', () => {
    const { connections, failures } = toSeveral(GET);
    connections[0]!.reused = true;
    connections[0]!.sink.onFailure(LOST);
    expect([connections.length, hostOf(connections[1]!)]).toEqual([2, hostOf(connections[0]!)]);
    expect(failures()).toEqual([0, 0, 0]);
  });

  it('goes to no other one when its repeat is refused: the first connection can have carried it', () => {
    const { connections, socket } = toSeveral(GET);
    connections[0]!.reused = true;
    connections[0]!.sink.onFailure(LOST);
    refuse(connections[1]!);
    expect(connections).toHaveLength(2);
    expect(socket.written).toMatch(/^HTTP\/1\.1 502 /);
  });

  it('counts as a failure when no response comes in time, and not when it breaks off later', () => {
    const late = toSeveral(GET);
    late.tick(TIMEOUT_MS + 1);
    expect(late.failures()).toEqual([0, 0, 1]);
    const broken = toSeveral(GET);
    broken.connections[0]!.respond(OK, 'bo');
    broken.connections[0]!.sink.onFailure(LOST);
    expect(broken.failures()).toEqual([0, 0, 0]);
    const gone = toSeveral(GET);
    gone.socket.destroy();
    gone.tick(TIMEOUT_MS + 1);
    expect(gone.failures()).toEqual([0, 0, 0]);
  });

  it('blames no upstream for the time that another one used', () => {
    const { connections, tick, failures } = toSeveral(GET);
    tick(TIMEOUT_MS - 100);
    refuse(connections[0]!);
    tick(TIMEOUT_MS + 1);
    expect(failures()).toEqual([0, 0, 1]);
  });

  it('ends the count of failures in a row with any response', () => {
    const { connections, healths } = toSeveral(GET, 1);
    for (let i = 1; i < EJECTED_AFTER; i++) healths[0]!.failed('x', 0);
    connections[0]!.respond('HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n', 'body', '');
    healths[0]!.failed('x', 0);
    expect(healths[0]!.isAvailable).toBe(true);
  });
});
