import type { InvalidationKind, TokenSnapshot } from '@latchkey/contracts';
import { hashSecret, mint } from '@latchkey/token-format';
import { flushPromises, id, LEASE_MS, READ, world } from './world.js';

describe('a fill', () => {
  it('is one lookup for all checks that wait for it', async () => {
    const { authority, verifier } = await world();
    const { secret, hash } = authority.issue();
    authority.holdLookups = true;
    const checks = Array.from({ length: 100 }, () => verifier.verify(secret, READ));
    await flushPromises();
    expect(authority.lookups).toEqual([hash]);
    await authority.pendingLookups[0]!.respond(authority.read(hash));
    for (const check of checks) expect(await check).toMatchObject({ allowed: true });
    expect(verifier.counters).toMatchObject({ fills: 1, fillsShared: 99 });
  });

  const dropped: Record<string, (snapshot: TokenSnapshot) => [InvalidationKind, string]> = {
    'its token': (snapshot) => ['token', snapshot.id],
    'an ancestor': (snapshot) => ['token', snapshot.ancestors[1]!],
    'its owner': (snapshot) => ['owner', snapshot.ownerId],
    'one of its projects': (snapshot) => ['project', snapshot.grants[1]!.project],
    everything: () => ['everything', ''],
  };
  it.each(Object.entries(dropped))(
    'is neither stored nor used when poisoned by an invalidation of %s',
    async (_, what) => {
      const { authority, verifier } = await world();
      const grants = [1, 2].map(() => ({ project: id(), scopes: ['demo:read'] }));
      const { secret, hash, snapshot } = authority.issue({ ancestors: [id(), id()], grants });
      authority.holdLookups = true;
      const asker = verifier.verify(secret, READ);
      const joiner = verifier.verify(secret, READ);
      await flushPromises();
      const stale = authority.read(hash);
      authority.tokens.set(hash, { ...snapshot, denial: 'revoked' });
      authority.invalidate(...what(snapshot));
      authority.holdLookups = false;
      await authority.pendingLookups[0]!.respond(stale);
      for (const check of [asker, joiner]) expect(await check).toMatchObject({ allowed: false, reason: 'revoked' });
      expect(verifier.counters.fillsPoisoned).toBe(1);
      expect(verifier.verify(secret, READ)).toMatchObject({ reason: 'revoked' });
    },
  );

  it('is not poisoned by unrelated invalidations, nor by a misses invalidation when its token is known', async () => {
    const { authority, verifier } = await world();
    const { secret, hash } = authority.issue();
    authority.holdLookups = true;
    const check = verifier.verify(secret, READ);
    await flushPromises();
    for (const kind of ['token', 'owner', 'project'] as const) authority.invalidate(kind, id());
    authority.invalidate('misses');
    await authority.pendingLookups[0]!.respond(authority.read(hash));
    expect(await check).toMatchObject({ allowed: true });
    expect(verifier.counters.fills).toBe(1);
  });

  it('older than the remembered invalidations is poisoned, whatever they name', async () => {
    const { authority, clock, verifier } = await world();
    const { secret, hash } = authority.issue();
    authority.holdLookups = true;
    const check = verifier.verify(secret, READ);
    await flushPromises();
    for (let i = 0; i < 1_025; i++) {
      if (i % 50 === 0) await clock.pass(100);
      authority.invalidate('owner', id());
    }
    authority.holdLookups = false;
    await authority.pendingLookups[0]!.respond(authority.read(hash));
    expect(await check).toMatchObject({ allowed: true });
    expect(verifier.counters).toMatchObject({ fills: 2, fillsPoisoned: 1 });
  });

  it('serves no check that joined it when the lease has expired on its arrival', async () => {
    const { authority, clock, verifier } = await world();
    const { secret, hash, snapshot } = authority.issue();
    authority.holdLookups = true;
    const asker = verifier.verify(secret, READ);
    await flushPromises();
    const stale = authority.read(hash); // read before the revocation
    authority.feedDown = true;
    authority.unavailable = true;
    await clock.pass(LEASE_MS - 1);
    authority.tokens.set(hash, { ...snapshot, denial: 'revoked' });
    authority.invalidate('token', snapshot.id, true);
    const joiner = verifier.verify(secret, READ);
    await clock.pass(1);
    authority.holdLookups = false;
    authority.unavailable = false;
    await authority.pendingLookups[0]!.respond(stale);
    expect(await joiner).toMatchObject({ allowed: false, reason: 'revoked' });
    expect(await asker).toMatchObject({ allowed: true }); // it began before the revocation
  });

  it.each(Array.from({ length: 16 }, (_, turns) => turns))(
    'poisoned after its response arrived is not used (%i turns later)',
    async (turns) => {
      const { authority, verifier } = await world();
      const { secret, hash } = authority.issue();
      authority.holdLookups = true;
      let used = false;
      const check = Promise.resolve(verifier.verify(secret, READ)).then((verdict) => {
        used = true;
        return verdict;
      });
      await flushPromises();
      const responded = authority.pendingLookups[0]!.respond(authority.read(hash));
      authority.holdLookups = false;
      for (let i = 0; i < turns; i++) await Promise.resolve();
      const usedBefore = used;
      authority.revoke(hash);
      await responded;
      // The last turn is the caller's, after the verdict.
      if (!usedBefore && turns < 4) expect(await check).toMatchObject({ allowed: false });
      expect(await verifier.verify(secret, READ)).toMatchObject({ reason: 'revoked' });
    },
  );

  it('poisoned in every attempt is unavailable', async () => {
    const { authority, verifier } = await world({ limits: { lookupsPerCheckMax: 3 } });
    const { secret, hash, snapshot } = authority.issue();
    authority.holdLookups = true;
    const check = verifier.verify(secret, READ);
    for (let i = 0; i < 3; i++) {
      await flushPromises();
      authority.invalidate('token', snapshot.id);
      await authority.pendingLookups[i]!.respond(authority.read(hash));
    }
    expect(await check).toMatchObject({ allowed: false, reason: 'unavailable' });
    expect(authority.lookups).toHaveLength(3);
  });

  it('with a malformed response is unavailable', async () => {
    const { authority, verifier } = await world();
    const { secret } = authority.issue();
    authority.holdLookups = true;
    const check = verifier.verify(secret, READ);
    await flushPromises();
    await authority.pendingLookups[0]!.respond({ known: true, token: {} as never });
    expect(await check).toMatchObject({ reason: 'unavailable' });
  });
});

describe('a response that names another log than the memory', () => {
  it('is neither used nor stored while a lease is held: a renewal follows, then another lookup', async () => {
    const { authority, clock, verifier, outcome } = await world();
    const { secret, hash } = authority.issue();
    const deposed = { ...authority.read(hash), log: id() };
    authority.revoke(hash);
    authority.holdLookups = true;
    const check = verifier.verify(secret, READ);
    await flushPromises();
    const { renewals } = verifier.counters;
    await authority.pendingLookups[0]!.respond(deposed);
    authority.holdLookups = false;
    await clock.pass(1);
    expect(verifier.counters.renewals).toBe(renewals + 1);
    expect(await check).toMatchObject({ reason: 'revoked' });
    expect(await outcome(secret)).toBe('revoked');
    expect(verifier.counters.fillsOfOtherLog).toBe(1);
  });

  it('because a new log has begun empties memory, and the check continues', async () => {
    const { authority, clock, verifier, outcome } = await world();
    const [remembered, asked] = [authority.issue(), authority.issue()];
    await outcome(remembered.secret);
    Object.assign(authority, { logId: id() });
    authority.tokens.set(remembered.hash, { ...remembered.snapshot, denial: 'revoked' });
    const check = verifier.verify(asked.secret, READ);
    await flushPromises();
    await clock.pass(1);
    expect(await check).toMatchObject({ allowed: true });
    expect(await outcome(remembered.secret)).toBe('revoked');
  });

  it('serves only its own check without a lease, and is dropped with the next lease', async () => {
    const { authority, clock, verifier, outcome } = await world();
    const { secret, hash, snapshot } = authority.issue();
    await outcome(authority.issue().secret);
    authority.holdRenewals = true;
    await clock.pass(LEASE_MS + 1);
    expect(verifier.state().leaseHeld).toBe(false);
    // Another renewal is in flight, sent with the cursor of the memory.
    await authority.pendingRenewals[0]!.fail();
    await clock.pass(LEASE_MS / 4);
    authority.holdLookups = true;
    const check = verifier.verify(secret, READ);
    await flushPromises();
    await authority.pendingLookups[0]!.respond({ ...authority.read(hash), log: id() });
    expect(await check).toMatchObject({ allowed: true });
    authority.holdLookups = false;
    authority.tokens.set(hash, { ...snapshot, denial: 'revoked' });
    await authority.pendingRenewals[1]!.respond(authority.grant(authority.pendingRenewals[1]!.request));
    expect(verifier.state().leaseHeld).toBe(true);
    expect(await outcome(secret)).toBe('revoked');
  });
});

describe('well-formed junk', () => {
  it('from one address uses at most its share of lookups, then gets rate_limited', async () => {
    const { authority, verifier, outcome } = await world({ limits: { fillsPerAddressMax: 3 } });
    const known = authority.issue();
    await outcome(known.secret);
    authority.invalidate('owner', known.snapshot.ownerId);
    authority.holdLookups = true;
    const from = (ip: string) => ({ scopes: [], ip });
    for (let i = 0; i < 3; i++) void verifier.verify(mint('pat'), from('192.0.2.1'));
    expect(await verifier.verify(mint('pat'), from('192.0.2.1'))).toMatchObject({ reason: 'rate_limited' });
    await flushPromises();
    expect(authority.pendingLookups).toHaveLength(3);
    void verifier.verify(mint('pat'), from('192.0.2.2'));
    void verifier.verify(known.secret, from('192.0.2.1'));
    await flushPromises();
    expect(authority.pendingLookups).toHaveLength(5);
    for (const { request, respond } of authority.pendingLookups) await respond(authority.read(request));
    void verifier.verify(mint('pat'), from('192.0.2.1'));
    await flushPromises();
    expect(authority.pendingLookups).toHaveLength(6);
  });

  it('from all addresses leaves the lookups reserved for known tokens free', async () => {
    const { authority, verifier, outcome } = await world({
      limits: { entriesMax: 2, fillsMax: 6, fillsReservedForKnown: 3 },
    });
    const [evicted, dropped, ...others] = Array.from({ length: 3 }, () => authority.issue());
    for (const { secret } of [evicted!, dropped!, ...others]) expect(await outcome(secret)).toBe('allowed');
    authority.invalidate('owner', dropped!.snapshot.ownerId);
    authority.holdLookups = true;
    for (let i = 0; i < 3; i++) void verifier.verify(mint('pat'), READ);
    await flushPromises();
    expect(await outcome(mint('pat'))).toBe('unavailable');
    const checks = [evicted!, dropped!].map(({ secret }) => verifier.verify(secret, READ));
    await flushPromises();
    for (const { request, respond } of authority.pendingLookups) await respond(authority.read(request));
    for (const check of checks) expect(await check).toMatchObject({ allowed: true });
    expect(verifier.counters.fillsRefused).toBe(1);
  });

  it('with a wrong shape or checksum costs no lookup', async () => {
    const { authority, verifier, outcome } = await world();
    const secret = mint('pat');
    expect(await outcome('nonsense')).toBe('malformed');
    expect(await outcome(`${secret.slice(0, -1)}${secret.endsWith('0') ? '1' : '0'}`)).toBe('bad_checksum');
    expect(authority.lookups).toEqual([]);
    expect(verifier.counters.verdicts).toMatchObject({ malformed: 1, bad_checksum: 1 });
  });
});

describe('an unknown secret', () => {
  it('is remembered as unknown for missLifeMs, then looked up again', async () => {
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
    const { secret, hash, snapshot } = authority.issue();
    authority.tokens.delete(hash);
    expect(await outcome(secret)).toBe('unknown');
    authority.tokens.set(hash, snapshot);
    authority.invalidate('misses');
    expect(await outcome(secret)).toBe('allowed');
  });

  it('looked up while it is imported is not remembered as unknown', async () => {
    const { authority, verifier, outcome } = await world();
    const { secret, hash } = authority.issue();
    authority.holdLookups = true;
    const check = verifier.verify(secret, READ);
    await flushPromises();
    authority.invalidate('misses');
    authority.holdLookups = false;
    await authority.pendingLookups[0]!.respond({ known: false, token: null });
    expect(await check).toMatchObject({ allowed: true });
    expect(await outcome(secret)).toBe('allowed');
    expect(authority.lookups).toEqual([hash, hash]);
  });

  it('never evicts a remembered token, and memory of unknown secrets is bounded', async () => {
    const { authority, verifier, outcome } = await world({ limits: { entriesMax: 2, missesMax: 3 } });
    const { secret } = authority.issue();
    await outcome(secret);
    for (let i = 0; i < 20; i++) await outcome(mint('pat'));
    expect(verifier.state()).toMatchObject({ entries: 1, misses: 3 });
    expect(verifier.verify(secret, READ)).toMatchObject({ allowed: true });
  });
});

describe('memory', () => {
  it('shares nothing with entries that an invalidation has dropped', async () => {
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

  it('stays within its bound and keeps entries in use', async () => {
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

  it('rejects invalid limits', async () => {
    await expect(world({ limits: { entriesMax: 0 } })).rejects.toThrow('entriesMax');
    await expect(world({ limits: { fillsMax: 5, fillsReservedForKnown: 5 } })).rejects.toThrow('fillsReservedForKnown');
  });
});
