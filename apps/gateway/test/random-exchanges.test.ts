import type { DenialReason } from '@latchkey/contracts';
import { cutsOf, Random } from './differential/random.js';
import { exchange, type FakeConnection } from './fake-exchange.js';

/** A request of a random stream. */
interface Sent {
  readonly bytes: string;
  /** As the upstream is to receive it. */
  readonly body: string;
  readonly isMalformed: boolean;
}

function requestOf(random: Random, number: number): Sent {
  const lines = [`X-N: ${number}`];
  if (random.chance(0.1)) lines.push('Connection: close');
  const minor = random.chance(0.1) ? 0 : 1;
  const content = String(number).repeat(1 + random.below(30));
  const how = random.below(4);
  if (how === 0)
    return { bytes: head(random.pick(['GET', 'HEAD', 'DELETE']), minor, lines), body: '', isMalformed: false };
  if (random.chance(0.2)) lines.push('Expect: 100-continue');
  if (how === 1 || minor === 0) {
    lines.push(`Content-Length: ${content.length}`);
    return { bytes: head('POST', minor, lines) + content, body: content, isMalformed: false };
  }
  lines.push('Transfer-Encoding: chunked');
  const isMalformed = random.chance(0.1);
  const chunk = `${content.length.toString(16)}\r\n${content}\r\n`;
  const body = `${chunk}${random.chance(0.5) ? chunk : ''}${isMalformed ? 'x' : '0\r\n\r\n'}`;
  return { bytes: head('POST', minor, lines) + body, body, isMalformed };
}

const head = (method: string, minor: number, lines: readonly string[]) =>
  `${[`${method} / HTTP/1.${minor}`, 'Host: g', ...lines].join('\r\n')}\r\n\r\n`;

/** What an upstream says over one connection, as events that can come one by one. */
class Upstream {
  readonly #steps: (() => void)[] = [];
  isOver = false;

  constructor(
    random: Random,
    private readonly connection: FakeConnection,
  ) {
    const { sink } = connection;
    const number = /X-N: (\d+)/.exec(connection.written)?.[1];
    const content = `<${number}>`.repeat(random.below(40));
    const bytes = Buffer.from(content);
    const framing = random.below(3);
    const fields = `X-N: ${number}\r\n${random.chance(0.1) ? 'Content-Type: text/event-stream\r\n' : ''}`;
    const say = (framed: string, body: string, tail?: string) =>
      connection.respond(`HTTP/1.1 200 OK\r\n${fields}${framed}`, body, tail);
    if (random.chance(0.2)) this.#steps.push(() => connection.respond('HTTP/1.1 103 Hints\r\n'));
    if (random.chance(0.2)) this.#steps.push(() => connection.respond('HTTP/1.1 100 Continue\r\n'));
    if (sink.method === 'HEAD' || bytes.length === 0) this.#steps.push(() => say('Content-Length: 0\r\n', '', ''));
    else {
      const at = random.below(bytes.length);
      const end = framing === 2 ? `${bytes.length.toString(16)}\r\n${content}\r\n0\r\n\r\n` : content;
      const framed = ['', `Content-Length: ${bytes.length}\r\n`, 'Transfer-Encoding: chunked\r\n'][framing]!;
      this.#steps.push(
        () => say(framed, end.slice(0, at)),
        () => sink.onData(Buffer.from(end), at, end.length),
      );
    }
    this.#steps.push(() => {
      this.isOver = true;
      sink.onEnd('');
    });
  }

  /** What comes next; nothing once the gateway has left, or reads no more. */
  step(): void {
    if (!this.isOver && !this.connection.destroyed && !this.connection.isPaused) this.#steps.shift()?.();
  }

  drain(): void {
    if (!this.isOver && !this.connection.destroyed) this.connection.sink.onDrain();
  }

  fail(random: Random): void {
    if (this.isOver || this.connection.destroyed) return;
    this.isOver = true;
    this.connection.destroyed = true;
    this.connection.reused = random.chance(0.5);
    this.connection.sink.onFailure({ kind: random.pick(['lost', 'malformed', 'connect timeout']), reason: 'random' });
  }
}

function run(index: number): void {
  const random = Random.of(1, 'exchanges', index);
  const sent = Array.from({ length: 1 + random.below(4) }, (_, number) => requestOf(random, number));
  const stream = sent.map(({ bytes }) => bytes).join('');
  const cuts = cutsOf(random, stream.length);
  const cutters: ((reason: DenialReason) => void)[] = [];
  const it = exchange('', {
    timeoutMs: 5_000,
    ...(random.chance(0.3) && {
      watch: (cut) => {
        cutters.push(cut);
        return () => undefined;
      },
    }),
  });
  const { socket, connections, open } = it;
  const upstreams = new Map<FakeConnection, Upstream>();
  const of = (connection: FakeConnection): Upstream => {
    const known = upstreams.get(connection) ?? new Upstream(random, connection);
    upstreams.set(connection, known);
    return known;
  };
  let [at, nowMs] = [0, 0];
  const tick = (ms: number) => {
    nowMs += ms;
    it.tick(nowMs);
    socket.tick(nowMs);
  };
  const hasRareEvents = random.chance(0.5);
  for (let events = 0; events < 60; events++) {
    const connection = connections.length > 0 ? random.pick(connections) : undefined;
    switch (random.below(hasRareEvents ? 14 : 8)) {
      case 0:
      case 1: {
        const to = cuts.shift();
        if (to === undefined || socket.destroyed) break;
        if (socket.isPaused()) cuts.unshift(to);
        else {
          socket.receive(stream.slice(at, to));
          at = to;
        }
        break;
      }
      case 2:
      case 3:
        if (connection) of(connection).step();
        break;
      case 4:
      case 5:
        if (connection) of(connection).drain();
        break;
      case 6:
        if (socket.writableNeedDrain || socket.writableLength > 0) socket.drain();
        else if (!socket.destroyed) [socket.writableNeedDrain, socket.writableLength] = [true, 100];
        break;
      case 7:
        tick(random.pick([1, 600, 1_100]));
        break;
      case 8:
        if (connection) of(connection).fail(random);
        break;
      case 9:
        tick(random.pick([6_000, 61_000, 121_000]));
        break;
      case 10:
        for (const cut of cutters.splice(0)) cut(random.pick(['revoked', 'unavailable']));
        break;
      case 11:
        if (random.chance(0.3)) for (const timed of [...open]) timed.abandon();
        break;
      case 12:
        if (random.chance(0.3) && !socket.destroyed) socket.emit('end');
        break;
      default:
        if (random.chance(0.2)) socket.connection.closeWhenIdle();
    }
  }
  // Responses come in the order of the requests, each once.
  const numbers = [...socket.written.matchAll(/^HTTP\/1\.1 200 OK\r\nX-N: (\d+)\r\n/gm)].map(([, number]) =>
    Number(number),
  );
  expect(numbers).toEqual([...new Set(numbers)].sort());
  const finals = [...socket.written.matchAll(/HTTP\/1\.1 [2-5]\d\d /g)].length;
  expect(finals).toBeLessThanOrEqual(sent.length + 1);
  // An upstream never receives another body than the one that was sent for it, and a whole one only if it is whole.
  for (const { written, complete } of connections) {
    const [, body] = /^.*?\r\n\r\n(.*)$/s.exec(written)!;
    const request = sent[Number(/X-N: (\d+)/.exec(written)![1])]!;
    expect(request.body.startsWith(body!)).toBe(true);
    if (complete) expect([body, request.isMalformed]).toEqual([request.body, false]);
  }
  socket.destroy();
  expect(open.size).toBe(0);
  for (const [connection, upstream] of upstreams) expect(connection.destroyed || upstream.isOver).toBe(true);
}

it('whatever comes in whatever order, nothing fails, mixes up or is left open', () => {
  for (let index = 0; index < 4_000; index++) {
    try {
      run(index);
    } catch (error) {
      throw new Error(`case ${index}`, { cause: error });
    }
  }
});
