import type { CallerRequest, TunnelSink, UpstreamConnection } from '../src/engine/index.js';
import { HALF_CLOSED_MS, TUNNEL_STALL_MS, Tunnel } from '../src/handlers/tunnel.js';
import type { ResponseHead } from '../src/http/index.js';
import type { OpenExchanges, Timed } from '../src/streams/index.js';

/** One side of a tunnel, without a network. */
class Side {
  /** It has read what was written. */
  reads = true;
  isPaused = false;
  ended = false;
  destroyed = false;
  written = '';

  write = (bytes: Buffer): boolean => {
    this.written += bytes.toString('latin1');
    return this.reads;
  };
  pause = (): void => {
    this.isPaused = true;
  };
  resume = (): void => {
    this.isPaused = false;
  };
  end = (): void => {
    this.ended = true;
  };
  destroy = (): void => {
    this.destroyed = true;
  };
}

function tunnel() {
  const [caller, upstream] = [new Side(), new Side()];
  const open = new Set<Timed>();
  const clock = { nowMs: 0, add: (it: Timed) => open.add(it), remove: (it: Timed) => open.delete(it) };
  let fromCaller: TunnelSink | undefined;
  const request = {
    head: { requestId: 'id' },
    begin: () => true,
    tunnel: (sink: TunnelSink) => {
      fromCaller = sink;
    },
    writeTunnel: caller.write,
    endTunnel: caller.end,
    destroyTunnel: caller.destroy,
    pause: caller.pause,
    resume: caller.resume,
  };
  const connection = {
    handOver: () => undefined,
    write: upstream.write,
    finish: upstream.end,
    destroy: upstream.destroy,
    pause: upstream.pause,
    resume: upstream.resume,
  };
  const it = new Tunnel(
    request as unknown as CallerRequest,
    connection as unknown as UpstreamConnection,
    undefined,
    clock as unknown as OpenExchanges,
  );
  it.start({ lines: '', reason: '' } as ResponseHead, Buffer.alloc(0));
  return {
    caller,
    upstream,
    fromUpstream: it,
    fromCaller: fromCaller!,
    open,
    tick: (nowMs: number) => {
      clock.nowMs = nowMs;
      for (const timed of [...open]) timed.tick(nowMs);
    },
  };
}

const BYTES = Buffer.from('abc');

it('once one side has ended, the other has half a minute', () => {
  for (const first of ['fromCaller', 'fromUpstream'] as const) {
    const all = tunnel();
    if (first === 'fromCaller') all.fromCaller.onEnd();
    else all.fromUpstream.onEnd();
    const other = first === 'fromCaller' ? all.upstream : all.caller;
    expect([other.ended, all.open.size]).toEqual([true, 1]);
    all.tick(HALF_CLOSED_MS);
    expect(all.open.size).toBe(1);
    all.tick(HALF_CLOSED_MS + 1);
    expect([all.open.size, all.upstream.destroyed, all.caller.ended]).toEqual([0, true, true]);
  }
});

it('a silent tunnel stays open', () => {
  const { open, tick } = tunnel();
  tick(10 * TUNNEL_STALL_MS);
  expect(open.size).toBe(1);
});

it('an upstream that is lost leaves the caller what it has said last', () => {
  const { caller, upstream, fromUpstream, open } = tunnel();
  fromUpstream.onData(BYTES, 0, 3);
  fromUpstream.onFailure();
  expect([caller.written, caller.ended, caller.destroyed]).toEqual(['abc', true, false]);
  expect([upstream.destroyed, open.size]).toEqual([true, 0]);
});

describe('a side that never reads', () => {
  it('is not written to without end, and the tunnel ends: the caller', () => {
    const { caller, upstream, fromUpstream, open, tick } = tunnel();
    caller.reads = false;
    fromUpstream.onData(BYTES, 0, 3);
    expect(upstream.isPaused).toBe(true);
    tick(TUNNEL_STALL_MS);
    expect(open.size).toBe(1);
    tick(TUNNEL_STALL_MS + 1);
    expect([open.size, upstream.destroyed, caller.ended]).toEqual([0, true, true]);
  });

  it('is not written to without end, and the tunnel ends: the upstream', () => {
    const { caller, upstream, fromCaller, open, tick } = tunnel();
    upstream.reads = false;
    fromCaller.onData(BYTES);
    expect(caller.isPaused).toBe(true);
    tick(TUNNEL_STALL_MS);
    expect(open.size).toBe(1);
    tick(TUNNEL_STALL_MS + 1);
    expect([open.size, upstream.destroyed, caller.ended]).toEqual([0, true, true]);
  });

  it('but reads at last goes on', () => {
    const { caller, upstream, fromCaller, fromUpstream, open, tick } = tunnel();
    [caller.reads, upstream.reads] = [false, false];
    fromCaller.onData(BYTES);
    fromUpstream.onData(BYTES, 0, 3);
    tick(TUNNEL_STALL_MS);
    fromCaller.onDrain();
    fromUpstream.onDrain();
    expect([caller.isPaused, upstream.isPaused]).toEqual([false, false]);
    tick(2 * TUNNEL_STALL_MS);
    expect(open.size).toBe(1);
  });
});
