import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { FIRST_PARTY_CALLER, signUsageBatch, type UsageBatch, usageBatchSchema } from '@latchkey/contracts';
import { mint } from '@latchkey/token-format';
import { type Clock, UsageReporter, usageText } from '../src/index.js';
import { UsageDenials } from '../src/usage-denials.js';
import { UsageTally } from '../src/usage-tally.js';

const newId = () => crypto.randomUUID();
/** The machine's clocks; timers never fire. */
const clock: Clock = {
  monotonicMs: () => performance.now(),
  uptimeMs: () => performance.now(),
  wallMs: () => Date.now(),
  after: () => () => undefined,
};
const counted = (all: UsageBatch[], tokenId: string, status: string) =>
  all
    .flatMap(({ lines }) => lines)
    .filter((line) => line.tokenId === tokenId && line.status === status)
    .reduce((sum, { count }) => sum + count, 0);

describe('usage', () => {
  it('sends a batch again unchanged until it is taken', async () => {
    const sent: UsageBatch[] = [];
    let failing = true;
    let verifier: string | undefined;
    const usage = new UsageReporter({
      sign: (batch) =>
        verifier === undefined
          ? undefined
          : signUsageBatch(Buffer.from('key'), FIRST_PARTY_CALLER, { verifier, ...batch }),
      sink: {
        send: async ({ body }) => {
          sent.push(JSON.parse(body));
          // Taken, but the response was lost: the sender cannot know.
          if (failing) throw new Error('the connection was lost');
        },
        onReturn: () => undefined,
      },
      clock,
    });
    const [a, b] = [newId(), newId()];
    usage.count(a, 'r', 'allowed', '::1', '');
    expect(await usage.flush()).toBe(false); // there is no key yet
    expect(sent).toEqual([]);
    verifier = newId();
    expect(await usage.flush()).toBe(false);
    usage.count(a, 'r', 'allowed', '::1', '');
    verifier = newId(); // a signed batch keeps its verifier
    usage.count(b, 'r', 'allowed', '::1', '');
    expect(await usage.flush()).toBe(false);
    failing = false;
    expect(await usage.flush()).toBe(true);
    expect(sent.map(({ sequence }) => sequence)).toEqual([1, 1, 1, 2]);
    expect(sent[1]).toEqual(sent[0]);
    const taken = [sent[2]!, sent[3]!];
    expect([counted(taken, a, 'allowed'), counted(taken, b, 'allowed')]).toEqual([2, 1]);
  });

  it('drops callers before it drops counts', () => {
    const tally = new UsageTally({ linesMax: 100, linesPerTokenMax: 10 });
    const tokens = Array.from({ length: 30 }, () => newId());
    for (let i = 0; i < 3_000; i++)
      tally.add(tokens[i % 30]!, 'r', 'allowed', `10.0.${i % 97}.1`, `agent/${i}`, 1_000_000 + i);
    const lines = tally.take(5_000);
    expect(lines.length).toBeLessThanOrEqual(130);
    for (const id of tokens) {
      const own = lines.filter(({ tokenId }) => tokenId === id);
      expect(own.reduce((sum, { count }) => sum + count, 0)).toBe(100);
    }
    expect([tally.size, tally.lost, tally.take(10)]).toEqual([0, 0, []]);
  });

  it('is taken in batches of at most the requested number of lines', () => {
    const tally = new UsageTally({ linesMax: 1_000, linesPerTokenMax: 100 });
    const id = newId();
    for (let i = 0; i < 25; i++) tally.add(id, `r${i}`, 'allowed', '', '', 0);
    expect([tally.take(10).length, tally.take(10).length, tally.take(10).length, tally.size]).toEqual([10, 10, 5, 0]);
  });
});

/** What the worst caller sends in place of each text. */
const secret = `lk_pat_${'a'.repeat(36)}`;
const hostile = [
  '\0',
  '\u0001'.repeat(1_000),
  `${'x'.repeat(44)}\u{1F600}`,
  `${secret} ${'y'.repeat(2_000_000)}`,
  '\uD800',
];

describe('denials', () => {
  it.each(hostile)('with any text in them are taken by a reader of batches, and show no secret', async (text) => {
    const bodies: string[] = [];
    const usage = new UsageReporter({
      sign: (batch) => signUsageBatch(Buffer.from('key'), FIRST_PARTY_CALLER, { verifier: newId(), ...batch }),
      sink: { send: async ({ body }) => void bodies.push(body), onReturn: () => undefined },
      clock,
    });
    const texts = { requestId: text, route: text, method: text, ip: text };
    for (let i = 0; i < 100; i++) usage.deny({ ...texts, reason: 'malformed', tokenId: null });
    usage.count(newId(), 'r', 'allowed', '::1', text);
    expect(await usage.flush()).toBe(true);
    expect(usageBatchSchema.safeParse(JSON.parse(bodies[0]!))).toMatchObject({ success: true });
    expect(bodies[0]).not.toContain(secret);
    expect(bodies[0]).not.toMatch(/\\u(?!fffd)/i);
    expect(bodies[0]!.length).toBeLessThan(20_000);
  });

  it('of existing tokens are not displaced by junk, and dropped ones are counted', () => {
    const denials = new UsageDenials({ realMax: 10, perTokenMax: 4, junkMax: 6, perReasonAndAddressMax: 2 });
    const line = (reason: 'malformed' | 'revoked', tokenId: string | null, ip: string) =>
      denials.add({ requestId: 'x', atMs: 0, reason, tokenId, route: 'r', method: 'GET', ip });
    for (let i = 0; i < 1_000; i++) line('malformed', null, `10.0.0.${i % 5}`);
    const [loud, quiet] = [newId(), newId()];
    for (let i = 0; i < 100; i++) line('revoked', loud, '10.0.0.1');
    line('revoked', quiet, '10.0.0.1');
    const { denials: kept, dropped } = denials.take();
    expect(kept.filter(({ tokenId }) => tokenId === null)).toHaveLength(6);
    expect(kept.filter(({ tokenId }) => tokenId === loud)).toHaveLength(4);
    expect(kept.filter(({ tokenId }) => tokenId === quiet)).toHaveLength(1);
    expect(dropped).toBe(994 + 96);
    line('malformed', null, '10.0.0.1');
    expect(denials.take()).toMatchObject({ dropped: 0, denials: [{ reason: 'malformed' }] });
  });
});

describe('what is kept of a request', () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const heapMb = () => {
    collect();
    return process.memoryUsage().heapUsed / 1_000_000;
  };
  /** Parts of one flat text, as read from a socket. */
  const partsOf = (i: number) => {
    const head = Buffer.from(
      `${`id-of-a-request-${i}-`.padEnd(36, '0')}203.0.113.${100 + (i % 100)}${'x'.repeat(50_000)}`,
    ).toString('latin1');
    return { requestId: head.slice(0, 36), ip: head.slice(36, 49), userAgent: head.slice(49, 149) };
  };

  it('for its count does not keep the head that it was cut from', () => {
    const tally = new UsageTally({ linesMax: 2_000, linesPerTokenMax: 1 });
    const before = heapMb();
    for (let i = 0; i < 1_000; i++) {
      const { ip, userAgent } = partsOf(i);
      tally.add(`token-${i}`, 'route', 'allowed', ip, userAgent, 0);
    }
    expect(heapMb() - before).toBeLessThan(10);
    expect(tally.take(1)[0]).toMatchObject({ ip: '203.0.113.100', userAgent: 'x'.repeat(100) });
  });

  it('for its denial does not keep the head that it was cut from', () => {
    const limits = { realMax: 1_000, perTokenMax: 1, junkMax: 0, perReasonAndAddressMax: 0 };
    const denials = new UsageDenials(limits);
    const before = heapMb();
    for (let i = 0; i < 1_000; i++) {
      const { ip, requestId, userAgent } = partsOf(i);
      denials.add({
        requestId,
        reason: 'revoked',
        tokenId: `token-${i}`,
        route: userAgent,
        method: userAgent,
        ip,
        atMs: 0,
      });
    }
    expect(heapMb() - before).toBeLessThan(10);
    expect(denials.take().denials[7]!.requestId).toMatch(/^id-of-a-request-7-0+$/);
  });

  it('is the same text, whatever its characters', () => {
    const tally = new UsageTally({ linesMax: 10, linesPerTokenMax: 10 });
    const userAgent = 'a\xe9\u6f0f\ud800\ud83d\ude00\0';
    tally.add('t', 'r', 'allowed', '::1', userAgent, 0);
    tally.add('t', 'r', 'allowed', '::1', userAgent, 0);
    expect(tally.take(9)).toMatchObject([{ userAgent, count: 2 }]);
  });
});

test('no text of callers shows more than the start of a secret, wherever it is cut', () => {
  const secrets = Array.from({ length: 4 }, () => mint('pat'));
  for (const kind of ['userAgent', 'route'] as const)
    for (let hidden = 0; hidden <= 3; hidden++)
      for (let at = 0; at < 400; at++) {
        const before = `${secrets.slice(0, hidden).join(' ')}${' '.repeat(at)}`;
        const text = usageText(kind, `${before}${secrets[3]}${'x'.repeat(300)}`);
        expect(text).not.toContain(secrets[3]!.slice(0, 'lk_pat_'.length + 5));
      }
});
