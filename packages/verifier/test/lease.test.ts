import { RenewalRefused } from '../src/index.js';
import { flushPromises, id, LEASE_MS, READ, world } from './world.js';

describe('a lease', () => {
  it('counts from before the request is sent, so that a slow response shortens it', async () => {
    const { authority, clock, verifier } = await world({ start: false });
    authority.holdRenewals = true;
    const started = verifier.start();
    clock.stall(LEASE_MS - 10);
    const { request, respond } = authority.pendingRenewals[0]!;
    await respond(authority.grant(request));
    await started;
    expect(verifier.state()).toMatchObject({ leaseHeld: true, leaseLeftMs: 10 });
    clock.stall(10);
    expect(verifier.state().leaseHeld).toBe(false);
  });

  it('is not taken from a response that arrives after its expiry, and nothing of that response is used', async () => {
    const { authority, clock, verifier } = await world({ start: false });
    authority.holdRenewals = true;
    const started = verifier.start();
    clock.stall(LEASE_MS);
    const { request, respond } = authority.pendingRenewals[0]!;
    await respond(authority.grant(request));
    await started;
    expect(verifier.state().leaseHeld).toBe(false);
    expect(verifier.counters.renewalsLate).toBe(1);
    authority.holdRenewals = false;
    await clock.pass(250);
    expect(authority.renewals.at(-1)!.cursor).toBeNull();
    expect(verifier.state().leaseHeld).toBe(true);
  });

  it('is renewed every third of its length, and lasts as long as granted', async () => {
    const { authority, clock, verifier } = await world();
    authority.leaseMs = 3_000;
    await clock.pass(LEASE_MS / 3 + 1);
    expect(authority.renewals).toHaveLength(2);
    expect(verifier.state().leaseLeftMs).toBeLessThanOrEqual(3_000);
    await clock.pass(3_001);
    expect(authority.renewals).toHaveLength(5);
  });

  it('is requested again soon after a failure, and granted when the authority is available again', async () => {
    const { authority, clock, verifier } = await world();
    authority.unavailable = true;
    await clock.pass(LEASE_MS);
    expect(verifier.state().leaseHeld).toBe(false);
    authority.unavailable = false;
    await clock.pass(250);
    expect(verifier.state().leaseHeld).toBe(true);
    expect(verifier.counters.resets).toBe(1);
  });

  it('expired by a clock stepped ahead is renewed with the next check', async () => {
    const { authority, clock, verifier, outcome } = await world();
    const { secret } = authority.issue();
    await outcome(secret);
    clock.stepWall(3_600_000);
    expect(verifier.state().leaseHeld).toBe(false);
    expect(await outcome(secret)).toBe('allowed');
    expect(verifier.state().leaseHeld).toBe(true);
  });

  it('that grants nothing, or is malformed, is a failure and changes nothing', async () => {
    const { authority, clock, verifier } = await world({ start: false });
    authority.holdRenewals = true;
    const started = verifier.start();
    for (const wrong of [
      { leaseMs: 0 },
      { leaseMs: Number.NaN },
      { cursor: null },
      { cursor: { log: id(), xid: 'x' } },
      { verifierId: '' },
    ]) {
      const { request, respond } = authority.pendingRenewals.pop()!;
      await respond({ ...authority.grant(request), ...wrong });
      await started;
      expect(verifier.state().leaseHeld).toBe(false);
      await clock.pass(250);
    }
  });
});

describe('without a lease', () => {
  it('every check makes its own lookup', async () => {
    const { authority, verifier } = await world({ start: false });
    const { secret } = authority.issue();
    authority.holdLookups = true;
    const checks = [verifier.verify(secret, READ), verifier.verify(secret, READ)];
    await flushPromises();
    expect(authority.lookups).toHaveLength(2);
    for (const { request, respond } of authority.pendingLookups) await respond(authority.read(request));
    for (const check of checks) expect(await check).toMatchObject({ allowed: true });
    authority.holdLookups = false;
    await verifier.verify(secret, READ);
    expect(authority.lookups).toHaveLength(3);
  });

  it('an unavailable authority is the denial unavailable, never one about the token', async () => {
    const { authority, outcome } = await world({ start: false });
    authority.unavailable = true;
    expect(await outcome(authority.issue().secret)).toBe('unavailable');
  });
});

describe('the cursor', () => {
  it('of another log empties memory and poisons every fill in flight', async () => {
    const { authority, clock, verifier, outcome } = await world();
    const remembered = authority.issue();
    const asked = authority.issue();
    await outcome(remembered.secret);
    authority.holdLookups = true;
    const check = verifier.verify(asked.secret, READ);
    await flushPromises();
    const stale = authority.read(asked.hash);
    for (const { hash, snapshot } of [remembered, asked])
      authority.tokens.set(hash, { ...snapshot, denial: 'revoked' });
    Object.assign(authority, { logId: id() });
    await clock.pass(LEASE_MS / 3 + 1);
    expect(verifier.counters.resets).toBe(2);
    authority.holdLookups = false;
    await authority.pendingLookups[0]!.respond(stale);
    expect(await check).toMatchObject({ reason: 'revoked' });
    expect(await outcome(remembered.secret)).toBe('revoked');
    expect(verifier.counters.fillsPoisoned).toBe(1);
  });

  it('pinned by a long transaction causes no invalidation to be applied twice', async () => {
    const { authority, clock, verifier, outcome } = await world();
    authority.pinnedXid = authority.xid;
    const { secret, hash } = authority.issue();
    await outcome(secret);
    authority.revoke(hash);
    expect(await outcome(secret)).toBe('revoked');
    for (let i = 0; i < 5; i++) await clock.pass(LEASE_MS / 3 + 1);
    expect(verifier.counters).toMatchObject({ invalidationsApplied: 1, fills: 2 });
    expect(verifier.counters.invalidationsRepeated).toBeGreaterThanOrEqual(4);
    authority.pinnedXid = undefined;
    await clock.pass(LEASE_MS / 3 + 1);
    await clock.pass(LEASE_MS / 3 + 1);
    expect(verifier.counters.invalidationsApplied).toBe(1);
  });
});

describe('stop', () => {
  it('ends the use of memory at once, waits for the renewal in flight, then releases the lease', async () => {
    const { authority, clock, verifier, outcome } = await world();
    const { secret } = authority.issue();
    await outcome(secret);
    authority.holdRenewals = true;
    await clock.pass(LEASE_MS / 3 + 1);
    const stopped = verifier.stop();
    expect(verifier.verify(secret, READ)).toBeInstanceOf(Promise);
    await flushPromises();
    expect(authority.released).toEqual([]);
    const { request, respond } = authority.pendingRenewals[0]!;
    await respond(authority.grant(request));
    await stopped;
    expect(authority.released).toEqual([authority.verifierId]);
    expect(verifier.state().leaseHeld).toBe(false);
    await clock.pass(LEASE_MS);
    expect(authority.renewals).toHaveLength(2);
  });
});

describe('the identity', () => {
  it('is requested with the same claim until it is rejected', async () => {
    const { authority, clock, verifier } = await world({ start: false });
    authority.unavailable = true;
    await verifier.start();
    await clock.pass(600);
    authority.unavailable = false;
    await clock.pass(LEASE_MS);
    const claims = new Set(authority.renewals.map(({ claim }) => claim));
    expect(claims.size).toBe(1);
    expect(authority.renewals[0]!.claim).toMatch(/^[A-Za-z0-9_-]{32,64}$/);
    expect(authority.renewals.length).toBeGreaterThan(4);
  });

  it('rejected ends the lease at once, empties memory, and is reported; a new claim is made', async () => {
    const { authority, clock, verifier, outcome, rejections } = await world();
    const { secret } = authority.issue();
    await outcome(secret);
    authority.rejection = new RenewalRefused('identity', 'the lease was ended');
    await clock.pass(LEASE_MS / 3 + 1);
    expect(verifier.state().leaseHeld).toBe(false);
    expect(verifier.id).toBeUndefined();
    expect(rejections).toEqual(['the lease was ended']);
    authority.verifierId = id();
    await clock.pass(250);
    expect(verifier.state().leaseHeld).toBe(true);
    expect(verifier.id).toBe(authority.verifierId);
    const [first, refused, again] = authority.renewals;
    expect(refused!.claim).toBe(first!.claim);
    expect(again).toMatchObject({ cursor: null });
    expect(again!.claim).not.toBe(first!.claim);
    expect(verifier.counters).toMatchObject({ identitiesTaken: 1, renewalsRefused: 1, renewalsFailed: 0 });
  });

  it('assigned anew brings a new key, which signs acknowledgements', async () => {
    const { authority, clock, verifier } = await world();
    Object.assign(authority, { verifierId: id(), salt: Buffer.from('another row') });
    await clock.pass(LEASE_MS / 3 + 1);
    const invalidation = authority.invalidate('owner', id());
    await flushPromises();
    expect(authority.acknowledged).toEqual([invalidation.id]);
    expect(verifier.counters.identitiesTaken).toBe(1);
  });

  it('refused for now is requested rarely, and checks are lookups meanwhile', async () => {
    const { authority, clock, verifier, outcome } = await world({ start: false });
    const { secret } = authority.issue();
    authority.rejection = new RenewalRefused('later', 'no lease for ten minutes');
    await verifier.start();
    expect(await outcome(secret)).toBe('allowed');
    expect(await outcome(secret)).toBe('allowed');
    expect(authority.lookups).toHaveLength(2);
    await clock.pass(4_999);
    expect(authority.renewals).toHaveLength(1);
    await clock.pass(1);
    expect(authority.renewals).toHaveLength(2);
    expect(authority.renewals[1]!.claim).toBe(authority.renewals[0]!.claim);
  });
});
