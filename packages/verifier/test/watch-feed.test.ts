import type { WatchRequest, WatchResponse } from '@latchkey/contracts';
import { RenewalRefused, Verifier, type WatchCall, WatchFeed } from '../src/index.js';
import { Authority, FakeClock, flushPromises, LEASE_MS, READ } from './world.js';

/** A call like grpc-js's, with the test as the server. */
class FakeCall implements WatchCall {
  readonly sent: WatchRequest[] = [];
  writableLength = 0;
  /** Half-closed by the feed. */
  ended = false;
  cancelled = false;
  readonly #listeners: Record<string, ((value: never) => void)[]> = {};

  write(request: WatchRequest): boolean {
    this.sent.push(request);
    return true;
  }
  end(): void {
    this.ended = true;
  }
  cancel(): void {
    this.cancelled = true;
  }
  on(event: string, listener: (value: never) => void): void {
    this.#listeners[event] = [...(this.#listeners[event] ?? []), listener];
  }
  #emit(event: string, value?: unknown): void {
    for (const listener of this.#listeners[event] ?? []) listener(value as never);
  }

  respond(response: Partial<WatchResponse> = {}): void {
    this.#emit('data', { message: '', renew: false, closing: false, ...response });
  }
  fail(): void {
    this.#emit('error', new Error('connection lost'));
  }
  over(): void {
    this.#emit('end');
  }
}

/** A verifier whose feed is a stream; the first one is open unless `open` is false. */
async function world({ open = true } = {}) {
  const clock = new FakeClock();
  const authority = new Authority();
  const calls: FakeCall[] = [];
  const interruptions: Error[] = [];
  const feed = new WatchFeed({
    open: () => {
      const call = new FakeCall();
      calls.push(call);
      return call;
    },
    clock,
    random: () => 1,
    onInterrupted: (error) => interruptions.push(error),
  });
  let claims = 0;
  const verifier = new Verifier({
    name: 'theirs',
    newClaim: () => `claim-${++claims}-of-the-tests-0123456789abcdef`,
    clock,
    source: authority,
    feed,
  });
  // Messages for the test to send on the stream.
  const messages: string[] = [];
  authority.deliver = (text) => messages.push(text);
  await verifier.start();
  if (open) calls[0]!.respond();
  const accepts = async (secret: string) => (await verifier.verify(secret, READ)).allowed;
  return { clock, authority, calls, interruptions, feed, verifier, messages, accepts };
}

const acknowledgements = ({ sent }: FakeCall) => sent.filter(({ acknowledgement }) => acknowledgement !== '').length;

describe('a stream', () => {
  it('opens with the first lease, and starts with the verifier`s id and cursor', async () => {
    const { authority, calls, feed } = await world({ open: false });
    expect(calls.map(({ sent }) => sent)).toEqual([
      [
        {
          verifierId: authority.verifierId,
          cursor: { log: authority.logId, xid: String(authority.xid) },
          acknowledgement: '',
        },
      ],
    ]);
    expect(feed.isOpen).toBe(false);
    calls[0]!.respond();
    expect(feed.isOpen).toBe(true);
  });

  it('does not open without a lease', async () => {
    const clock = new FakeClock();
    const authority = new Authority();
    authority.unavailable = true;
    let opened = 0;
    const open = () => {
      opened++;
      return new FakeCall();
    };
    const feed = new WatchFeed({ open, clock });
    const verifier = new Verifier({ name: '', newClaim: () => 'x'.repeat(32), clock, source: authority, feed });
    await verifier.start();
    await clock.pass(10_000);
    expect(opened).toBe(0);
    authority.unavailable = false;
    await clock.pass(1_000);
    expect(opened).toBe(1);
  });

  it('delivers messages, which are applied before they are acknowledged on it', async () => {
    const { authority, calls, messages, accepts, verifier } = await world();
    const { secret, hash } = authority.issue();
    expect(await accepts(secret)).toBe(true);
    authority.revoke(hash);
    calls[0]!.respond({ message: messages[0]! });
    expect(acknowledgements(calls[0]!)).toBe(1);
    await authority.acknowledge(calls[0]!.sent.at(-1)!.acknowledgement);
    expect(authority.acknowledged).toHaveLength(1);
    expect(await accepts(secret)).toBe(false);
    expect(verifier.counters.acknowledgementsFailed).toBe(0);
  });

  it('with 1,000 unsent acknowledgements gets no more; further ones fail', async () => {
    const { authority, calls, messages, verifier } = await world();
    authority.invalidate('everything');
    calls[0]!.writableLength = 1_000;
    calls[0]!.respond({ message: messages[0]! });
    await flushPromises();
    expect(acknowledgements(calls[0]!)).toBe(0);
    expect(verifier.counters.acknowledgementsFailed).toBe(1);
  });

  it('is ended with the verifier, and no other is opened', async () => {
    const { calls, clock, verifier, feed } = await world();
    await verifier.stop();
    expect(calls[0]!.ended).toBe(true);
    calls[0]!.over();
    await clock.pass(60_000);
    expect([calls.length, calls[0]!.cancelled, feed.isOpen]).toEqual([1, false, false]);
  });
});

describe('a message with renew', () => {
  it('causes renewals at once until a cursor past it has been sent', async () => {
    const { authority, calls, clock, messages } = await world();
    const { xid } = authority.invalidate('everything');
    calls[0]!.respond({ message: messages[0]!, renew: true });
    await clock.pass(100);
    const sent = authority.renewals.slice(1).map(({ cursor }) => BigInt(cursor!.xid) > BigInt(xid));
    expect(sent).toEqual([false, true]);
    expect(acknowledgements(calls[0]!)).toBe(1);
    await clock.pass(1_000);
    expect(authority.renewals).toHaveLength(3);
  });

  it('causes renewals for at most a third of a lease when a transaction delays the cursor', async () => {
    const { authority, calls, clock, messages } = await world();
    authority.pinnedXid = authority.xid;
    authority.invalidate('everything');
    calls[0]!.respond({ message: messages[0]!, renew: true });
    await clock.pass(LEASE_MS / 3 + 100);
    const { length } = authority.renewals;
    expect(length).toBeLessThan(150);
    await clock.pass(LEASE_MS / 3 - 200);
    expect(authority.renewals).toHaveLength(length);
  });

  it('causes no renewal when it is not authentic', async () => {
    const { authority, calls, clock, messages } = await world();
    authority.invalidate('everything');
    calls[0]!.respond({ message: messages[0]!.replace('everything', 'misses'), renew: true });
    await clock.pass(1_000);
    expect(authority.renewals).toHaveLength(1);
  });
});

it('messages left out cause one renewal at once, which brings their invalidations', async () => {
  const { authority, calls, clock, accepts } = await world();
  const { secret, hash } = authority.issue();
  expect(await accepts(secret)).toBe(true);
  authority.revoke(hash);
  calls[0]!.respond({ renew: true });
  calls[0]!.respond({ renew: true });
  await clock.pass(1);
  expect(authority.renewals).toHaveLength(2);
  expect(await accepts(secret)).toBe(false);
});

describe('a stream that is interrupted', () => {
  it('is opened again with exponential back-off, at most five seconds', async () => {
    const { calls, clock, interruptions } = await world();
    const pauses: number[] = [];
    for (let i = 0; i < 8; i++) {
      const before = calls.length;
      calls.at(-1)!.fail();
      let ms = 0;
      while (calls.length === before) {
        await clock.pass(100);
        ms += 100;
      }
      pauses.push(ms);
    }
    expect(pauses).toEqual([100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
    expect(interruptions).toHaveLength(8);
  });

  it('right after opening keeps the back-off; one that lasted resets it', async () => {
    const { calls, clock } = await world();
    const fail = async () => {
      const before = calls.length;
      calls.at(-1)!.over();
      for (let ms = 100; ; ms += 100) {
        await clock.pass(100);
        if (calls.length === before) continue;
        calls.at(-1)!.respond();
        return ms;
      }
    };
    expect([await fail(), await fail(), await fail()]).toEqual([100, 200, 400]);
    await clock.pass(5_000);
    expect(await fail()).toBe(100);
  });

  it('starts again at the present cursor', async () => {
    const { authority, calls, clock } = await world();
    authority.invalidate('everything');
    authority.invalidate('everything');
    await clock.pass(LEASE_MS / 3 + 1);
    calls[0]!.fail();
    await clock.pass(100);
    expect(calls.map(({ sent }) => sent[0]!.cursor!.xid)).toEqual(['100', '102']);
  });

  it('rejects acknowledgements meanwhile', async () => {
    const { calls, feed } = await world();
    calls[0]!.fail();
    await expect(feed.acknowledge('x')).rejects.toThrow('no stream');
  });
});

describe('a server that stops', () => {
  it('is left only after another has responded', async () => {
    const { authority, calls, messages, interruptions } = await world();
    calls[0]!.respond({ closing: true });
    expect(calls).toHaveLength(2);
    expect(calls[0]!.ended).toBe(false);
    authority.invalidate('everything');
    calls[0]!.respond({ message: messages[0]! });
    expect(acknowledgements(calls[0]!)).toBe(1);
    calls[1]!.respond();
    expect(calls[0]!.ended).toBe(true);
    calls[0]!.over();
    calls[1]!.respond({ message: messages[0]! });
    expect(acknowledgements(calls[1]!)).toBe(1);
    expect([calls.length, interruptions]).toEqual([2, []]);
  });

  it('is received from until the end when no other responds', async () => {
    const { authority, calls, clock, messages } = await world();
    calls[0]!.respond({ closing: true });
    calls[1]!.fail();
    authority.invalidate('everything');
    calls[0]!.respond({ message: messages[0]! });
    expect(acknowledgements(calls[0]!)).toBe(1);
    await clock.pass(100);
    expect(calls).toHaveLength(3);
    calls[0]!.fail();
    calls[2]!.respond();
    await clock.pass(10_000);
    expect(calls).toHaveLength(3);
  });
});

it('a new verifier id opens a new stream, and ends the old one', async () => {
  const { authority, calls, clock } = await world();
  authority.rejection = new RenewalRefused('identity', 'ended');
  await clock.pass(LEASE_MS / 3 + 1);
  authority.verifierId = '01890000-0000-7000-8000-00000000000a';
  await clock.pass(LEASE_MS);
  expect(calls[1]!.sent[0]!.verifierId).toBe(authority.verifierId);
  calls[1]!.respond();
  expect(calls[0]!.ended).toBe(true);
});
