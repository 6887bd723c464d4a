import type { InvalidationKind, TokenFacts } from '@latchkey/contracts';
import { hashSecret, mint } from '@latchkey/token-format';
import { id, LEASE_MS, READ, settled, world } from './world.js';

describe('a fill', () => {
  it('is one question however many checks wait for it', async () => {
    const { authority, verifier } = await world();
    const { secret, hash } = authority.issue();
    authority.holdLookups = true;
    const checks = Array.from({ length: 100 }, () => verifier.verify(secret, READ));
    await settled();
    expect(authority.lookups).toEqual([hash]);
    await authority.lookupsHeld[0]!.answer(authority.read(hash));
    for (const check of checks) expect(await check).toMatchObject({ allowed: true });
    expect(verifier.counters).toMatchObject({ fills: 1, fillsShared: 99 });
  });

  const overtaken: Record<string, (facts: TokenFacts) => [InvalidationKind, string]> = {
    'its token': (facts) => ['token', facts.id],
    'an ancestor': (facts) => ['token', facts.ancestors[1]!],
    'its owner': (facts) => ['owner', facts.ownerId],
    'one of its projects': (facts) => ['project', facts.grants[1]!.project],
    everything: () => ['everything', ''],
  };
  it.each(Object.entries(overtaken))(
    'overtaken by an invalidation of %s is neither stored nor used',
    async (_, what) => {
      const { authority, verifier } = await world();
      const grants = [1, 2].map(() => ({ project: id(), scopes: ['demo:read'] }));
      const { secret, hash, facts } = authority.issue({ ancestors: [id(), id()], grants });
      authority.holdLookups = true;
      const asker = verifier.verify(secret, READ);
      const joiner = verifier.verify(secret, READ);
      await settled();
      const stale = authority.read(hash);
      authority.tokens.set(hash, { ...facts, denial: 'revoked' });
      authority.invalidate(...what(facts));
      authority.holdLookups = false;
      await authority.lookupsHeld[0]!.answer(stale);
      for (const check of [asker, joiner]) expect(await check).toMatchObject({ allowed: false, reason: 'revoked' });
      expect(verifier.counters.fillsPoisoned).toBe(1);
      expect(verifier.verify(secret, READ)).toMatchObject({ reason: 'revoked' });
    },
  );

  it('is not poisoned by what does not concern it, nor by a misses invalidation when its token is known', async () => {
    const { authority, verifier } = await world();
    const { secret, hash } = authority.issue();
    authority.holdLookups = true;
    const check = verifier.verify(secret, READ);
    await settled();
    for (const kind of ['token', 'owner', 'project'] as const) authority.invalidate(kind, id());
    authority.invalidate('misses');
    await authority.lookupsHeld[0]!.answer(authority.read(hash));
    expect(await check).toMatchObject({ allowed: true });
    expect(verifier.counters.fills).toBe(1);
  });

  it('older than the invalidations remembered is poisoned, whatever they named', async () => {
    const { authority, clock, verifier } = await world();
    const { secret, hash } = authority.issue();
    authority.holdLookups = true;
    const check = verifier.verify(secret, READ);
    await settled();
    for (let i = 0; i < 1_025; i++) {
      if (i % 50 === 0) await clock.pass(100);
      authority.invalidate('owner', id());
    }
    authority.holdLookups = false;
    await authority.lookupsHeld[0]!.answer(authority.read(hash));
    expect(await check).toMatchObject({ allowed: true });
    expect(verifier.counters).toMatchObject({ fills: 2, fillsPoisoned: 1 });
  });

  it('serves no check that joined it when the lease has lapsed on its arrival', async () => {
    const { authority, clock, verifier } = await world();
    const { secret, hash, facts } = authority.issue();
    authority.holdLookups = true;
    const asker = verifier.verify(secret, READ);
    await settled();
    const stale = authority.read(hash); // read now, before the revocation
    authority.deaf = true;
    authority.away = true;
    await clock.pass(LEASE_MS - 1);
    authority.tokens.set(hash, { ...facts, denial: 'revoked' });
    authority.invalidate('token', facts.id, true);
    const joiner = verifier.verify(secret, READ);
    await clock.pass(1);
    authority.holdLookups = false;
    authority.away = false;
    await authority.lookupsHeld[0]!.answer(stale);
    expect(await joiner).toMatchObject({ allowed: false, reason: 'revoked' });
    expect(await asker).toMatchObject({ allowed: true }); // it began before the revocation
  });

  it.each(Array.from({ length: 16 }, (_, turns) => turns))(
    'whose answer is overtaken before anybody has used it is not used (%i turns later)',
    async (turns) => {
      const { authority, verifier } = await world();
      const { secret, hash } = authority.issue();
      authority.holdLookups = true;
      let used = false;
      const check = Promise.resolve(verifier.verify(secret, READ)).then((verdict) => {
        used = true;
        return verdict;
      });
      await settled();
      const answered = authority.lookupsHeld[0]!.answer(authority.read(hash));
      authority.holdLookups = false;
      for (let i = 0; i < turns; i++) await Promise.resolve();
      const usedBefore = used;
      authority.revoke(hash);
      await answered;
      // Its last turn is the caller's own, after the verdict.
      if (!usedBefore && turns < 4) expect(await check).toMatchObject({ allowed: false });
      expect(await verifier.verify(secret, READ)).toMatchObject({ reason: 'revoked' });
    },
  );

  it('overtaken again and again ends as unavailable', async () => {
    const { authority, verifier } = await world({ limits: { lookupsPerCheckMax: 3 } });
    const { secret, hash, facts } = authority.issue();
    authority.holdLookups = true;
    const check = verifier.verify(secret, READ);
    for (let i = 0; i < 3; i++) {
      await settled();
      authority.invalidate('token', facts.id);
      await authority.lookupsHeld[i]!.answer(authority.read(hash));
    }
    expect(await check).toMatchObject({ allowed: false, reason: 'unavailable' });
    expect(authority.lookups).toHaveLength(3);
  });

  it('that the authority answers with nonsense is unavailable', async () => {
    const { authority, verifier } = await world();
    const { secret } = authority.issue();
    authority.holdLookups = true;
    const check = verifier.verify(secret, READ);
    await settled();
    await authority.lookupsHeld[0]!.answer({ known: true, token: {} as never });
    expect(await check).toMatchObject({ reason: 'unavailable' });
  });
});

describe('an answer that names another log than what is remembered', () => {
  it('is neither used nor remembered while a lease is held: a renewal comes first, and then another question', async () => {
    const { authority, clock, verifier, outcome } = await world();
    const { secret, hash } = authority.issue();
    const deposed = { ...authority.read(hash), log: id() };
    authority.revoke(hash);
    authority.holdLookups = true;
    const check = verifier.verify(secret, READ);
    await settled();
    const { renewals } = verifier.counters;
    await authority.lookupsHeld[0]!.answer(deposed);
    authority.holdLookups = false;
    await clock.pass(1);
    expect(verifier.counters.renewals).toBe(renewals + 1);
    expect(await check).toMatchObject({ reason: 'revoked' });
    expect(await outcome(secret)).toBe('revoked');
    expect(verifier.counters.fillsOfOtherLog).toBe(1);
  });

  it('shows a log that has been begun anew: memory is emptied, and the check goes on', async () => {
    const { authority, clock, verifier, outcome } = await world();
    const [remembered, asked] = [authority.issue(), authority.issue()];
    await outcome(remembered.secret);
    Object.assign(authority, { logId: id() });
    authority.tokens.set(remembered.hash, { ...remembered.facts, denial: 'revoked' });
    const check = verifier.verify(asked.secret, READ);
    await settled();
    await clock.pass(1);
    expect(await check).toMatchObject({ allowed: true });
    expect(await outcome(remembered.secret)).toBe('revoked');
  });

  it('is good for the check that asked when no lease is held, and forgotten with the next lease', async () => {
    const { authority, clock, verifier, outcome } = await world();
    const { secret, hash, facts } = authority.issue();
    await outcome(authority.issue().secret);
    authority.holdRenewals = true;
    await clock.pass(LEASE_MS + 1);
    expect(verifier.state().leaseHeld).toBe(false);
    // Another renewal is under way, sent with the cursor of the memory.
    await authority.renewalsHeld[0]!.fail();
    await clock.pass(LEASE_MS / 4);
    authority.holdLookups = true;
    const check = verifier.verify(secret, READ);
    await settled();
    await authority.lookupsHeld[0]!.answer({ ...authority.read(hash), log: id() });
    expect(await check).toMatchObject({ allowed: true });
    authority.holdLookups = false;
    authority.tokens.set(hash, { ...facts, denial: 'revoked' });
    await authority.renewalsHeld[1]!.answer(authority.grant(authority.renewalsHeld[1]!.question));
    expect(verifier.state().leaseHeld).toBe(true);
    expect(await outcome(secret)).toBe('revoked');
  });
});

describe('well-formed junk', () => {
  it('from one address fills no more than its share, and is told to slow down', async () => {
    const { authority, verifier, outcome } = await world({ limits: { fillsPerAddressMax: 3 } });
    const known = authority.issue();
    await outcome(known.secret);
    authority.invalidate('owner', known.facts.ownerId);
    authority.holdLookups = true;
    const from = (ip: string) => ({ scopes: [], ip });
    for (let i = 0; i < 3; i++) void verifier.verify(mint('pat'), from('192.0.2.1'));
    expect(await verifier.verify(mint('pat'), from('192.0.2.1'))).toMatchObject({ reason: 'rate_limited' });
    await settled();
    expect(authority.lookupsHeld).toHaveLength(3);
    void verifier.verify(mint('pat'), from('192.0.2.2'));
    void verifier.verify(known.secret, from('192.0.2.1'));
    await settled();
    expect(authority.lookupsHeld).toHaveLength(5);
    for (const { question, answer } of authority.lookupsHeld) await answer(authority.read(question));
    void verifier.verify(mint('pat'), from('192.0.2.1'));
    await settled();
    expect(authority.lookupsHeld).toHaveLength(6);
  });

  it('from everywhere leaves the room kept for tokens known to be real', async () => {
    const { authority, verifier, outcome } = await world({
      limits: { entriesMax: 2, fillsMax: 6, fillsReservedForKnown: 3 },
    });
    const [evicted, overtaken, ...others] = Array.from({ length: 3 }, () => authority.issue());
    for (const { secret } of [evicted!, overtaken!, ...others]) expect(await outcome(secret)).toBe('allowed');
    authority.invalidate('owner', overtaken!.facts.ownerId);
    authority.holdLookups = true;
    for (let i = 0; i < 3; i++) void verifier.verify(mint('pat'), READ);
    await settled();
    expect(await outcome(mint('pat'))).toBe('unavailable');
    const checks = [evicted!, overtaken!].map(({ secret }) => verifier.verify(secret, READ));
    await settled();
    for (const { question, answer } of authority.lookupsHeld) await answer(authority.read(question));
    for (const check of checks) expect(await check).toMatchObject({ allowed: true });
    expect(verifier.counters.fillsRefused).toBe(1);
  });

  it('with a bad shape or checksum costs no question', async () => {
    const { authority, verifier, outcome } = await world();
    const secret = mint('pat');
    expect(await outcome('nonsense')).toBe('malformed');
    expect(await outcome(`${secret.slice(0, -1)}${secret.endsWith('0') ? '1' : '0'}`)).toBe('bad_checksum');
    expect(authority.lookups).toEqual([]);
    expect(verifier.counters.verdicts).toMatchObject({ malformed: 1, bad_checksum: 1 });
  });
});

describe('an unknown secret', () => {
  it('is remembered as unknown for a moment, then asked for again', async () => {
    const { authority, clock, outcome } = await world();
    const secret = mint('pat');
    for (let i = 0; i < 5; i++) expect(await outcome(secret)).toBe('unknown');
    expect(authority.lookups).toHaveLength(1);
    await clock.pass(1_000);
    expect(await outcome(secret)).toBe('unknown');
    expect(authority.lookups).toHaveLength(2);
  });

  it('that is imported is accepted by every check after the misses invalidation', async () => {
    const { authority, outcome } = await world();
    const { secret, hash, facts } = authority.issue();
    authority.tokens.delete(hash);
    expect(await outcome(secret)).toBe('unknown');
    authority.tokens.set(hash, facts);
    authority.invalidate('misses');
    expect(await outcome(secret)).toBe('allowed');
  });

  it('asked for while it is imported is not remembered as unknown', async () => {
    const { authority, verifier, outcome } = await world();
    const { secret, hash } = authority.issue();
    authority.holdLookups = true;
    const check = verifier.verify(secret, READ);
    await settled();
    authority.invalidate('misses');
    authority.holdLookups = false;
    await authority.lookupsHeld[0]!.answer({ known: false, token: null });
    expect(await check).toMatchObject({ allowed: true });
    expect(await outcome(secret)).toBe('allowed');
    expect(authority.lookups).toEqual([hash, hash]);
  });

  it('never pushes out a remembered token, and memory of it is bounded', async () => {
    const { authority, verifier, outcome } = await world({ limits: { entriesMax: 2, missesMax: 3 } });
    const { secret } = authority.issue();
    await outcome(secret);
    for (let i = 0; i < 20; i++) await outcome(mint('pat'));
    expect(verifier.state()).toMatchObject({ entries: 1, misses: 3 });
    expect(verifier.verify(secret, READ)).toMatchObject({ allowed: true });
  });
});

describe('memory', () => {
  it('shares nothing with what an invalidation has overtaken', async () => {
    const { authority, verifier, outcome } = await world();
    const project = id();
    const alike = [1, 2, 3].map(() => authority.issue({ grants: [{ project, scopes: ['demo:read'] }] }));
    for (const { secret } of alike) expect(await outcome(secret)).toBe('allowed');
    authority.invalidate('project', project);
    for (const { secret } of alike) expect(await outcome(secret)).toBe('allowed');
    authority.invalidate('owner', id());
    for (const { secret } of alike) expect(verifier.verify(secret, READ)).toMatchObject({ allowed: true });
    expect(verifier.counters.fills).toBe(6);
  });

  it('keeps to its bound and gives a second chance to what is used', async () => {
    const { authority, verifier, outcome } = await world({ limits: { entriesMax: 10 } });
    const hot = authority.issue();
    await outcome(hot.secret);
    for (let i = 0; i < 100; i++) {
      await outcome(authority.issue().secret);
      expect(verifier.verify(hot.secret, READ)).toMatchObject({ allowed: true });
    }
    expect(verifier.state().entries).toBe(10);
    expect(verifier.counters).toMatchObject({ evictions: 91, fills: 101 });
    expect(authority.lookups.filter((hash) => hash === hashSecret(hot.secret))).toHaveLength(1);
  });

  it('refuses limits that are none', async () => {
    await expect(world({ limits: { entriesMax: 0 } })).rejects.toThrow('entriesMax');
    await expect(world({ limits: { fillsMax: 5, fillsReservedForKnown: 5 } })).rejects.toThrow('fillsReservedForKnown');
  });
});
