import { createHmac } from 'node:crypto';
import { feedSigner, INVALIDATIONS_PER_EVENT_MAX, type Invalidation } from '@latchkey/contracts';
import { FEED_DROPS } from '../src/counters.js';
import { flushPromises, id, LEASE_MS, READ, world } from './world.js';

type World = Awaited<ReturnType<typeof world>>;

const dropped = ({ verifier }: World) =>
  Object.fromEntries(Object.entries(verifier.counters.messagesDropped).filter(([, count]) => count > 0));

/** A verifier that remembers one token, and the text of a genuine message that it has not received. */
async function withUnreceived(options: Parameters<typeof world>[0] = {}) {
  const here = await world(options);
  const { authority, outcome } = here;
  const { secret, hash, snapshot } = authority.issue();
  expect(await outcome(secret)).toBe('allowed');
  authority.feedDown = true;
  const invalidation = authority.revoke(hash);
  authority.feedDown = false;
  const texts: string[] = [];
  const real = authority.deliver.bind(authority);
  authority.deliver = (text) => texts.push(text);
  authority.push(invalidation);
  authority.deliver = real;
  return { ...here, secret, hash, snapshot, invalidation, text: texts[0]! };
}

describe('a genuine message', () => {
  it('is acknowledged only after the token is dropped from memory', async () => {
    const { authority, verifier, outcome } = await world();
    const { secret, hash } = authority.issue();
    await outcome(secret);
    const seen: unknown[] = [];
    const acknowledge = authority.acknowledge.bind(authority);
    authority.acknowledge = async (text) => {
      seen.push(verifier.verify(secret, READ));
      await acknowledge(text);
    };
    authority.revoke(hash);
    expect(seen).toEqual([expect.any(Promise)]); // no verdict from memory any more
    expect(await seen[0]).toMatchObject({ allowed: false, reason: 'revoked' });
  });

  it('repeated is acknowledged again and not applied twice', async () => {
    const { authority, verifier, outcome } = await world();
    const { secret, hash } = authority.issue();
    await outcome(secret);
    const invalidation = authority.revoke(hash);
    await outcome(secret);
    const { fills } = verifier.counters;
    authority.push(invalidation);
    authority.push(invalidation);
    await flushPromises();
    expect(authority.acknowledged).toEqual([invalidation.id, invalidation.id, invalidation.id]);
    expect(await outcome(secret)).toBe('revoked');
    expect(verifier.counters).toMatchObject({ fills, invalidationsApplied: 1, invalidationsRepeated: 2 });
  });

  it('of several invalidations is applied and acknowledged as a whole', async () => {
    const { authority, verifier, outcome } = await world();
    const tokens = Array.from({ length: INVALIDATIONS_PER_EVENT_MAX }, () => authority.issue());
    for (const { secret } of tokens) await outcome(secret);
    authority.feedDown = true;
    const revoked = tokens.map(({ hash }) => authority.revoke(hash));
    authority.feedDown = false;
    authority.push(revoked);
    for (const { secret } of tokens) expect(await outcome(secret)).toBe('revoked');
    expect(authority.acknowledged).toEqual(revoked.map((one) => one.id));
    expect(verifier.counters).toMatchObject({ acknowledgements: 1, invalidationsApplied: tokens.length });
  });

  it('that arrived before the keys is kept, and acknowledged once they arrive', async () => {
    const { authority, verifier } = await world({ start: false });
    authority.holdRenewals = true;
    const started = verifier.start();
    const invalidation = authority.invalidate('owner', id());
    const { request, respond } = authority.pendingRenewals[0]!;
    expect(authority.acknowledged).toEqual([]);
    await respond(authority.grant(request));
    await started;
    expect(authority.acknowledged).toEqual([invalidation.id]);
  });

  it('by a key is accepted as soon as a renewal names the key, and until a renewal no longer does', async () => {
    const here = await world();
    const { authority, clock } = here;
    const [current, next] = [authority.signer, feedSigner(Buffer.from('the next one'))];
    const push = (signer: typeof next) => {
      authority.feedDown = true;
      const invalidation = authority.invalidate('owner', id());
      authority.feedDown = false;
      authority.push(invalidation, authority.logId, signer);
      return authority.acknowledged.includes(invalidation.id);
    };
    expect(push(next)).toBe(false);
    authority.feedKeys = [current.publicKey, next.publicKey];
    await clock.pass(LEASE_MS / 3 + 1);
    expect([push(current), push(next)]).toEqual([true, true]);
    authority.feedKeys = [next.publicKey];
    await clock.pass(LEASE_MS / 3 + 1);
    expect([push(current), push(next)]).toEqual([false, true]);
    expect(dropped(here)).toEqual({ unknown_key: 2 });
  });
});

describe('a message that is not genuine is dropped, counted by its reason, and revokes nothing', () => {
  const changed =
    (over: Partial<Invalidation>) =>
    ({ text }: { text: string }) => {
      const { invalidations, ...rest } = JSON.parse(text);
      return JSON.stringify({ ...rest, invalidations: [{ ...invalidations[0], ...over }] });
    };
  const outer =
    (over: object) =>
    ({ text }: { text: string }) =>
      JSON.stringify({ ...JSON.parse(text), ...over });

  const cases: [string, keyof World['verifier']['counters']['messagesDropped'], (h: { text: string }) => string][] = [
    ['not JSON', 'malformed', () => 'not json'],
    ['JSON of another shape', 'malformed', () => '[{"log":1}]'],
    ['empty', 'malformed', () => ''],
    ['truncated', 'malformed', ({ text }) => text.slice(0, -20)],
    ['an extra field', 'malformed', outer({ extra: 1 })],
    ['a __proto__ key', 'malformed', ({ text }) => text.replace('{', '{"__proto__":{"log":1},')],
    ['without an invalidation', 'malformed', outer({ invalidations: [] })],
    [
      'more invalidations than one signature covers',
      'malformed',
      ({ text }) => {
        const { invalidations, ...rest } = JSON.parse(text);
        const many = Array.from({ length: INVALIDATIONS_PER_EVENT_MAX + 1 }, () => ({
          ...invalidations[0],
          kind: 'misses',
          subject: '',
          xid: '1',
        }));
        return JSON.stringify({ ...rest, invalidations: many });
      },
    ],
    [
      'of version 2',
      'malformed',
      ({ text }) => {
        const { log, invalidations } = JSON.parse(text);
        return JSON.stringify({ log, invalidation: invalidations[0], mac: 'A'.repeat(43) });
      },
    ],
    ['longer than allowed', 'too_long', ({ text }) => `${text}${' '.repeat(16_000)}`],
    ['by a key that no renewal named', 'unknown_key', outer({ key: 'A'.repeat(16) })],
    ['without a signature', 'malformed', outer({ signature: '' })],
    ['with a signature of zeros', 'not_authentic', outer({ signature: 'A'.repeat(86) })],
    [
      'with a truncated signature',
      'malformed',
      ({ text }) => {
        const event = JSON.parse(text);
        return JSON.stringify({ ...event, signature: event.signature.slice(0, 80) });
      },
    ],
    ['with another kind', 'not_authentic', changed({ kind: 'misses', subject: '' })],
    ['with another subject', 'not_authentic', changed({ subject: id() })],
    ['with another id', 'not_authentic', changed({ id: id() })],
    ['with another xid', 'not_authentic', changed({ xid: '1' })],
    ['that cuts no streams', 'not_authentic', changed({ cut: false })],
    ['of another log', 'not_authentic', outer({ log: id() })],
  ];
  it.each(cases)('%s: %s', async (_, reason, forge) => {
    const here = await withUnreceived();
    const { authority, verifier, secret, text, outcome } = here;
    authority.deliver(forge(here));
    await flushPromises();
    expect(dropped(here)).toEqual({ [reason]: 1 });
    expect(authority.acknowledged).toEqual([]);
    expect(verifier.counters).toMatchObject({ invalidationsApplied: 0, resets: 1 });
    expect(verifier.verify(secret, READ)).toMatchObject({ allowed: true });
    // The genuine message is not skipped because of it.
    authority.deliver(text);
    expect(await outcome(secret)).toBe('revoked');
    expect(authority.acknowledged).toHaveLength(1);
  });

  it('signed with any key that a verifier has: public keys, its acknowledgement key, its usage key', async () => {
    const here = await withUnreceived();
    const { authority, verifier, secret, text } = here;
    const { ackKey, usageKey, feedKeys } = authority.grant(authority.renewals[0]!);
    const event = JSON.parse(text);
    const keys = [ackKey, usageKey, ...feedKeys];
    for (const key of keys) {
      const mac = createHmac('sha512', key).update(text).digest('base64url');
      authority.deliver(JSON.stringify({ ...event, signature: mac }));
      const own = feedSigner(key);
      authority.push(event.invalidations[0], authority.logId, { ...own, id: event.key });
    }
    await flushPromises();
    expect(dropped(here)).toEqual({ not_authentic: 2 * keys.length });
    expect(authority.acknowledged).toEqual([]);
    expect(verifier.verify(secret, READ)).toMatchObject({ allowed: true });
  });

  it('beyond the signatures checked per second, genuine or not; a second later messages are read again', async () => {
    const here = await withUnreceived({ limits: { signaturesPerSecondMax: 20 } });
    const { authority, clock, text, secret, outcome } = here;
    const forged = outer({ signature: 'A'.repeat(86) })({ text });
    authority.holdRenewals = true;
    for (let i = 0; i < 50; i++) authority.deliver(forged);
    for (const unread of [text, 'not json']) authority.deliver(unread);
    expect(dropped(here)).toEqual({ not_authentic: 20, over_budget: 32 });
    expect(await outcome(secret)).toBe('allowed'); // not confirmed by this verifier, so not effective yet
    await clock.pass(1_000);
    authority.deliver(text);
    expect(await outcome(secret)).toBe('revoked');
    // Messages read and dropped count too.
    await clock.pass(1_000);
    for (let i = 0; i < 50; i++) authority.deliver('not json');
    authority.deliver(text);
    expect(authority.acknowledged).toHaveLength(1);
  });

  it('beyond the signatures checked per second causes renewals at once, whose cursors confirm genuine invalidations', async () => {
    const { authority, clock, text, secret, outcome, invalidation } = await withUnreceived({
      limits: { signaturesPerSecondMax: 20 },
    });
    const forged = outer({ signature: 'A'.repeat(86) })({ text });
    const flood = async () => {
      for (let i = 0; i < 50; i++) authority.deliver(forged);
      authority.deliver(text);
      await clock.pass(1_000);
    };
    await flood();
    expect(await outcome(secret)).toBe('revoked');
    expect(authority.acknowledged).toEqual([]);
    await flood();
    expect(BigInt(authority.renewals.at(-1)!.cursor!.xid)).toBeGreaterThan(BigInt(invalidation.xid));
  });

  it('beyond those kept before the first renewal', async () => {
    const here = await world({ start: false });
    const { authority, verifier } = here;
    authority.holdRenewals = true;
    const started = verifier.start();
    for (let i = 0; i < 300; i++) authority.deliver('not json');
    expect(dropped(here)).toEqual({ too_early: 44 });
    const { request, respond } = authority.pendingRenewals[0]!;
    await respond(authority.grant(request));
    await started;
    expect(dropped(here)).toEqual({ too_early: 44, malformed: 64, over_budget: 192 });
  });

  it('has a counter for every reason from the start', async () => {
    const { verifier } = await world();
    expect(Object.keys(verifier.counters.messagesDropped)).toEqual([...FEED_DROPS]);
  });
});

describe('an invalidation is identified by its whole content', () => {
  it('is not skipped because of another with its id and other content, even signed with the right key', async () => {
    const here = await withUnreceived();
    const { authority, clock, verifier, secret, invalidation, text, outcome } = here;
    authority.push({ ...invalidation, kind: 'misses', subject: '', cut: false });
    expect(await outcome(secret)).toBe('allowed');
    authority.acknowledged.length = 0;
    authority.deliver(text);
    expect(dropped(here)).toEqual({ conflict: 1 });
    expect(authority.acknowledged).toEqual([]);
    expect(await outcome(secret)).toBe('revoked');
    expect(verifier.counters.resets).toBe(2);
    // The renewal that follows shows which of the two is genuine, which is acknowledged from then on.
    const { renewals } = verifier.counters;
    await clock.pass(0);
    expect(verifier.counters.renewals).toBe(renewals + 1);
    authority.deliver(text);
    expect(authority.acknowledged).toEqual([invalidation.id]);
  });

  it('from a renewal resets the memory when another with its id was applied', async () => {
    const { authority, clock, verifier, secret, invalidation, outcome } = await withUnreceived();
    authority.push({ ...invalidation, kind: 'misses', subject: '', cut: false });
    expect(await outcome(secret)).toBe('allowed');
    await clock.pass(LEASE_MS / 3 + 1);
    expect(await outcome(secret)).toBe('revoked');
    expect(verifier.counters.resets).toBe(2);
  });

  it('from a message is never skipped because its transaction lies below the cursor', async () => {
    const { authority, clock, verifier, outcome } = await world();
    const { secret, hash, snapshot } = authority.issue();
    authority.xid += 1_000;
    await clock.pass(LEASE_MS / 3 + 1);
    await outcome(secret);
    // As after a data folder was restored in place: the same log, and repeated transaction ids.
    authority.tokens.set(hash, { ...snapshot, denial: 'revoked' });
    const invalidation = { id: id(), kind: 'token', subject: snapshot.id, cut: true, xid: '500' } as const;
    authority.push(invalidation);
    expect(authority.acknowledged).toEqual([invalidation.id]);
    expect(await outcome(secret)).toBe('revoked');
    expect(verifier.counters.invalidationsApplied).toBe(1);
  });
});

describe('a message of an unknown log', () => {
  it('causes a renewal at once, and is acknowledged when the renewal names its log', async () => {
    const { authority, clock, verifier, outcome } = await world();
    const { secret, hash } = authority.issue();
    await outcome(secret);
    Object.assign(authority, { logId: id() });
    const invalidation = authority.revoke(hash);
    expect(authority.acknowledged).toEqual([]);
    await clock.pass(0);
    expect(authority.acknowledged).toEqual([invalidation.id]);
    expect(await outcome(secret)).toBe('revoked');
    expect(verifier.counters).toMatchObject({ renewals: 2, renewalsUrged: 1, resets: 2 });
  });

  it('is dropped when the renewal names another log, and then causes no further renewal', async () => {
    const here = await world();
    const { authority, clock, verifier } = here;
    const invalidation = { id: id(), kind: 'everything', subject: '', cut: true, xid: '1' } as const;
    const old = id();
    authority.push(invalidation, old);
    await clock.pass(0);
    expect(dropped(here)).toEqual({ other_log: 1 });
    for (let i = 0; i < 5; i++) authority.push(invalidation, old);
    await clock.pass(2_000);
    expect(dropped(here)).toEqual({ other_log: 6 });
    expect(verifier.counters).toMatchObject({ renewals: 2, resets: 1, invalidationsApplied: 0 });
    expect(authority.acknowledged).toEqual([]);
  });

  it('waits for a renewal sent after its arrival', async () => {
    const { authority, clock } = await world();
    authority.holdRenewals = true;
    await clock.pass(LEASE_MS / 3 + 1);
    const { request, respond } = authority.pendingRenewals[0]!;
    const before = authority.grant(request);
    Object.assign(authority, { logId: id() });
    const invalidation = authority.invalidate('owner', id());
    authority.holdRenewals = false;
    await respond(before);
    expect(authority.acknowledged).toEqual([]);
    await clock.pass(0);
    expect(authority.acknowledged).toEqual([invalidation.id]);
  });

  it('causes at most one renewal a second, whatever number of logs is named', async () => {
    const { authority, clock, verifier } = await world();
    for (let i = 0; i < 200; i++) {
      authority.push({ id: id(), kind: 'everything', subject: '', cut: false, xid: '1' }, id());
      await clock.pass(10);
    }
    expect(verifier.counters.renewals).toBeLessThanOrEqual(1 + 3);
  });
});
