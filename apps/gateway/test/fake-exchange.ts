import type {
  CallerRequest,
  ResponseSink,
  UpstreamConnection,
  UpstreamHealth,
  UpstreamPool,
} from '../src/engine/index.js';
import { Exchange, type Plan } from '../src/handlers/exchange.js';
import { HeadScan, ResponseHead } from '../src/http/index.js';
import type { OpenExchanges, Timed } from '../src/streams/index.js';
import { CallerSocket } from './caller-socket.js';
import { planFor } from './differential/ours.js';

const scan = new HeadScan();
export const TIMEOUT_MS = 500;
const BODY_IDLE_MS = 60_000;

/** An upstream's connection without a network. */
export class FakeConnection {
  reused = false;
  hasHeard = false;
  connected = true;
  written = '';
  complete = false;
  destroyed = false;
  /** Written behind what was sent first. */
  unsent = Buffer.alloc(0);
  isPaused = false;
  constructor(readonly sink: ResponseSink) {}
  write(bytes: Buffer): boolean {
    this.written += bytes.toString('latin1');
    this.unsent = Buffer.concat([this.unsent, bytes]);
    return false;
  }
  finish(tail: string): void {
    this.written += tail;
    this.unsent = Buffer.concat([this.unsent, Buffer.from(tail)]);
    this.complete = true;
  }
  destroy(): void {
    this.destroyed = true;
  }
  pause(): void {
    this.isPaused = true;
  }
  resume(): void {
    this.isPaused = false;
  }

  /** The head of a response, and its body as far as it came with it. */
  respond(head: string, body = '', tail?: string): void {
    scan.scan(Buffer.from(`${head}\r\n`), 0);
    const read = ResponseHead.read(head, scan, this.sink.method, this.sink.policy) as ResponseHead;
    const bytes = Buffer.from(body);
    if (read.status < 200) this.sink.onInterim(read);
    else this.sink.onResponse(read, bytes, 0, bytes.length, tail);
  }
}

/** @param connections where each request's connection is added */
export function fakePool(authority: string, connections: FakeConnection[], health?: UpstreamHealth): UpstreamPool {
  const send = (sink: ResponseSink, bytes: string, complete: boolean) => {
    const connection = new FakeConnection(sink);
    connection.written = bytes;
    connection.complete = complete;
    connections.push(connection);
    return connection as unknown as UpstreamConnection;
  };
  return { origin: { authority }, health, send } as unknown as UpstreamPool;
}

/** An exchange between a caller and an upstream, both without a network, by a clock of its own. */
export function exchange(head: string, more: Partial<Plan> = {}) {
  const open = new Set<Timed>();
  const clock = {
    nowMs: 0,
    add: (timed: Timed) => open.add(timed),
    remove: (timed: Timed) => open.delete(timed),
  };
  const connections: FakeConnection[] = [];
  const pool = fakePool('upstream', connections);
  let request: CallerRequest | undefined;
  let plan: Plan | undefined;
  const socket = new CallerSocket((it) => {
    request = it;
    const deps = {
      open: clock as unknown as OpenExchanges,
      bodyIdleMs: BODY_IDLE_MS,
      upstreamFailed: () => undefined,
    };
    plan = { ...planFor(it, '/', pool), timeoutMs: TIMEOUT_MS, ...more };
    new Exchange(it, plan, deps).start();
  });
  if (head !== '') socket.receive(head);
  return {
    socket,
    connections,
    open,
    request: request!,
    plan: plan!,
    tick: (nowMs: number) => {
      clock.nowMs = nowMs;
      for (const timed of [...open]) timed.tick(nowMs);
    },
  };
}
