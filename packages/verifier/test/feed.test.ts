import { createHmac } from 'node:crypto';
import { feedSigner, INVALIDATIONS_PER_EVENT_MAX, type Invalidation } from '@latchkey/contracts';
import { FEED_DROPS } from '../src/counters.js';
import { id, LEASE_MS, READ, settled, world } from './world.js';

type World = Awaited<ReturnType<typeof world>>;

const dropped = ({ verifier }: World) =>
  Object.fromEntries(Object.entries(verifier.counters.messagesDropped).filter(([, count]) => count > 0));

/** A verifier that remembers one token, and the text of a genuine message that it has not heard. */
async function heard(options: Parameters<typeof world>[0] = {}) {
  const here = await world(options);
  const { authority, outcome } = here;
  const { secret, hash, facts } = authority.issue();
  expect(await outcome(secret)).toBe('allowed');
  authority.deaf = true;
  const invalidation = authority.revoke(hash);
  authority.deaf = false;
  const texts: string[] = [];
  const real = authority.say.bind(authority);
  authority.say = (text) => texts.push(text);
  authority.push(invalidation);
  authority.say = real;
  return { ...here, secret, hash, facts, invalidation, text: texts[0]! };
}

describe('a genuine message', () => {
  it('is acknowledged only after memory has been overtaken', async () => {
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
    expect(seen).toEqual([expect.any(Promise)]); // no answer from memory any more
    expect(await seen[0]).toMatchObject({ allowed: false, reason: 'revoked' });
  });

  it('repeated is acknowledged again without forgetting anything twice', async () => {
    const { authority, verifier, outcome } = await world();
    const { secret, hash } = authority.issue();
    await outcome(secret);
    const invalidation = authority.revoke(hash);
    await outcome(secret);
    const { fills } = verifier.counters;
    authority.push(invalidation);
    authority.push(invalidation);
    await settled();
    expect(authority.acknowledged).toEqual([invalidation.id, invalidation.id, invalidation.id]);
    expect(await outcome(secret)).toBe('revoked');
    expect(verifier.counters).toMatchObject({ fills, invalidationsApplied: 1, invalidationsRepeated: 2 });
  });

  it('of several invalidations is applied and acknowledged whole', async () => {
    const { authority, verifier, outcome } = await world();
    const tokens = Array.from({ length: INVALIDATIONS_PER_EVENT_MAX }, () => authority.issue());
    for (const { secret } of tokens) await outcome(secret);
    authority.deaf = true;
    const revoked = tokens.map(({ hash }) => authority.revoke(hash));
    authority.deaf = false;
    authority.push(revoked);
    for (const { secret } of tokens) expect(await outcome(secret)).toBe('revoked');
    expect(authority.acknowledged).toEqual(revoked.map((one) => one.id));
    expect(verifier.counters).toMatchObject({ acknowledgements: 1, invalidationsApplied: tokens.length });
  });

  it('that came before the keys is kept, and acknowledged with them', async () => {
    const { authority, verifier } = await world({ start: false });
    authority.holdRenewals = true;
    const started = verifier.start();
    const invalidation = authority.invalidate('owner', id());
    const { question, answer } = authority.renewalsHeld[0]!;
    expect(authority.acknowledged).toEqual([]);
    await answer(authority.grant(question));
    await started;
    expect(authority.acknowledged).toEqual([invalidation.id]);
  });

  it('by the next key is believed as soon as a renewal has named it, by the one before until a renewal no longer does', async () => {
    const here = await world();
    const { authority, clock } = here;
    const [current, next] = [authority.signer, feedSigner(Buffer.from('the next one'))];
    const push = (signer: typeof next) => {
      authority.deaf = true;
      const invalidation = authority.invalidate('owner', id());
      authority.deaf = false;
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

describe('what is not genuine is dropped, counted by its reason, and ends nothing', () => {
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
    ['no JSON', 'malformed', () => 'not json'],
    ['JSON of another shape', 'malformed', () => '[{"log":1}]'],
    ['nothing', 'malformed', () => ''],
    ['cut off', 'malformed', ({ text }) => text.slice(0, -20)],
    ['a field more', 'malformed', outer({ extra: 1 })],
    ['a key of prototypes', 'malformed', ({ text }) => text.replace('{', '{"__proto__":{"log":1},')],
    ['no invalidation', 'malformed', outer({ invalidations: [] })],
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
    ['longer than any', 'too_long', ({ text }) => `${text}${' '.repeat(16_000)}`],
    ['by a key that no renewal named', 'unknown_key', outer({ key: 'A'.repeat(16) })],
    ['without a signature', 'malformed', outer({ signature: '' })],
    ['with a signature of zeros', 'not_authentic', outer({ signature: 'A'.repeat(86) })],
    [
      'with a signature cut off',
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
    const here = await heard();
    const { authority, verifier, secret, text, outcome } = here;
    authority.say(forge(here));
    await settled();
    expect(dropped(here)).toEqual({ [reason]: 1 });
    expect(authority.acknowledged).toEqual([]);
    expect(verifier.counters).toMatchObject({ invalidationsApplied: 0, resets: 1 });
    expect(verifier.verify(secret, READ)).toMatchObject({ allowed: true });
    // The genuine one is not skipped for it.
    authority.say(text);
    expect(await outcome(secret)).toBe('revoked');
    expect(authority.acknowledged).toHaveLength(1);
  });

  it('signed with whatever a holder of a lease knows: public keys, its own acknowledgement and usage keys', async () => {
    const here = await heard();
    const { authority, verifier, secret, text } = here;
    const { ackKey, usageKey, feedKeys } = authority.grant(authority.renewals[0]!);
    const event = JSON.parse(text);
    const keys = [ackKey, usageKey, ...feedKeys];
    for (const key of keys) {
      const mac = createHmac('sha512', key).update(text).digest('base64url');
      authority.say(JSON.stringify({ ...event, signature: mac }));
      const own = feedSigner(key);
      authority.push(event.invalidations[0], authority.logId, { ...own, id: event.key });
    }
    await settled();
    expect(dropped(here)).toEqual({ not_authentic: 2 * keys.length });
    expect(authority.acknowledged).toEqual([]);
    expect(verifier.verify(secret, READ)).toMatchObject({ allowed: true });
  });

  it('beyond the signatures that are checked in a second, unread, genuine or not; a second later there is room again', async () => {
    const here = await heard({ limits: { signaturesPerSecondMax: 20 } });
    const { authority, clock, text, secret, outcome } = here;
    const forged = outer({ signature: 'A'.repeat(86) })({ text });
    authority.holdRenewals = true;
    for (let i = 0; i < 50; i++) authority.say(forged);
    for (const unread of [text, 'not json']) authority.say(unread);
    expect(dropped(here)).toEqual({ not_authentic: 20, over_budget: 32 });
    expect(await outcome(secret)).toBe('allowed'); // not confirmed by this verifier, so not effective yet
    await clock.pass(1_000);
    authority.say(text);
    expect(await outcome(secret)).toBe('revoked');
    // What is read and dropped counts too: reading is work.
    await clock.pass(1_000);
    for (let i = 0; i < 50; i++) authority.say('not json');
    authority.say(text);
    expect(authority.acknowledged).toHaveLength(1);
  });

  it('beyond them is made up for by renewals at once, whose cursors confirm what was genuine', async () => {
    const { authority, clock, text, secret, outcome, invalidation } = await heard({
      limits: { signaturesPerSecondMax: 20 },
    });
    const forged = outer({ signature: 'A'.repeat(86) })({ text });
    const flood = async () => {
      for (let i = 0; i < 50; i++) authority.say(forged);
      authority.say(text);
      await clock.pass(1_000);
    };
    await flood();
    expect(await outcome(secret)).toBe('revoked');
    expect(authority.acknowledged).toEqual([]);
    await flood();
    expect(BigInt(authority.renewals.at(-1)!.cursor!.xid)).toBeGreaterThan(BigInt(invalidation.xid));
  });

  it('more than are kept before the first renewal', async () => {
    const here = await world({ start: false });
    const { authority, verifier } = here;
    authority.holdRenewals = true;
    const started = verifier.start();
    for (let i = 0; i < 300; i++) authority.say('not json');
    expect(dropped(here)).toEqual({ too_early: 44 });
    const { question, answer } = authority.renewalsHeld[0]!;
    await answer(authority.grant(question));
    await started;
    expect(dropped(here)).toEqual({ too_early: 44, malformed: 64, over_budget: 192 });
  });

  it('has a number for every reason from the start', async () => {
    const { verifier } = await world();
    expect(Object.keys(verifier.counters.messagesDropped)).toEqual([...FEED_DROPS]);
  });
});

describe('an invalidation is known by all that it says', () => {
  it('one of its id with other content makes nobody skip it, even signed with the right key', async () => {
    const here = await heard();
    const { authority, clock, verifier, secret, invalidation, text, outcome } = here;
    authority.push({ ...invalidation, kind: 'misses', subject: '', cut: false });
    expect(await outcome(secret)).toBe('allowed');
    authority.acknowledged.length = 0;
    authority.say(text);
    expect(dropped(here)).toEqual({ conflict: 1 });
    expect(authority.acknowledged).toEqual([]);
    expect(await outcome(secret)).toBe('revoked');
    expect(verifier.counters.resets).toBe(2);
    // The renewal that follows says which of the two was true; after that the true one is acknowledged.
    const { renewals } = verifier.counters;
    await clock.pass(0);
    expect(verifier.counters.renewals).toBe(renewals + 1);
    authority.say(text);
    expect(authority.acknowledged).toEqual([invalidation.id]);
  });

  it('and a renewal that tells it as it is overtakes what was applied in its name', async () => {
    const { authority, clock, verifier, secret, invalidation, outcome } = await heard();
    authority.push({ ...invalidation, kind: 'misses', subject: '', cut: false });
    expect(await outcome(secret)).toBe('allowed');
    await clock.pass(LEASE_MS / 3 + 1);
    expect(await outcome(secret)).toBe('revoked');
    expect(verifier.counters.resets).toBe(2);
  });

  it('a message is never skipped because its transaction lies below the cursor', async () => {
    const { authority, clock, verifier, outcome } = await world();
    const { secret, hash, facts } = authority.issue();
    authority.xid += 1_000;
    await clock.pass(LEASE_MS / 3 + 1);
    await outcome(secret);
    // As after a data folder put back in place: the same log, and transaction ids that were there before.
    authority.tokens.set(hash, { ...facts, denial: 'revoked' });
    const invalidation = { id: id(), kind: 'token', subject: facts.id, cut: true, xid: '500' } as const;
    authority.push(invalidation);
    expect(authority.acknowledged).toEqual([invalidation.id]);
    expect(await outcome(secret)).toBe('revoked');
    expect(verifier.counters.invalidationsApplied).toBe(1);
  });
});

describe('a message of a log that the verifier does not know', () => {
  it('brings a renewal at once, and is acknowledged when that names its log', async () => {
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

  it('is dropped when that names another; repeated, it brings no further renewal', async () => {
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

  it('waits for a renewal that was sent after it came', async () => {
    const { authority, clock } = await world();
    authority.holdRenewals = true;
    await clock.pass(LEASE_MS / 3 + 1);
    const { question, answer } = authority.renewalsHeld[0]!;
    const before = authority.grant(question);
    Object.assign(authority, { logId: id() });
    const invalidation = authority.invalidate('owner', id());
    authority.holdRenewals = false;
    await answer(before);
    expect(authority.acknowledged).toEqual([]);
    await clock.pass(0);
    expect(authority.acknowledged).toEqual([invalidation.id]);
  });

  it('brings one renewal a second at most, however many such logs somebody names', async () => {
    const { authority, clock, verifier } = await world();
    for (let i = 0; i < 200; i++) {
      authority.push({ id: id(), kind: 'everything', subject: '', cut: false, xid: '1' }, id());
      await clock.pass(10);
    }
    expect(verifier.counters.renewals).toBeLessThanOrEqual(1 + 3);
  });
});
