import { RenewalRefused } from '../src/index.js';
import { id, LEASE_MS, READ, settled, world } from './world.js';

describe('a lease', () => {
  it('counts from the moment before the question, so that a slow answer shortens it', async () => {
    const { authority, clock, verifier } = await world({ start: false });
    authority.holdRenewals = true;
    const started = verifier.start();
    clock.stall(LEASE_MS - 10);
    const { question, answer } = authority.renewalsHeld[0]!;
    await answer(authority.grant(question));
    await started;
    expect(verifier.state()).toMatchObject({ leaseHeld: true, leaseLeftMs: 10 });
    clock.stall(10);
    expect(verifier.state().leaseHeld).toBe(false);
  });

  it('is not taken from an answer that comes after its own end, and nothing of that answer is used', async () => {
    const { authority, clock, verifier } = await world({ start: false });
    authority.holdRenewals = true;
    const started = verifier.start();
    clock.stall(LEASE_MS);
    const { question, answer } = authority.renewalsHeld[0]!;
    await answer(authority.grant(question));
    await started;
    expect(verifier.state().leaseHeld).toBe(false);
    expect(verifier.counters.renewalsLate).toBe(1);
    authority.holdRenewals = false;
    await clock.pass(250);
    expect(authority.renewals.at(-1)!.cursor).toBeNull();
    expect(verifier.state().leaseHeld).toBe(true);
  });

  it('is renewed every third, and lasts as long as answered', async () => {
    const { authority, clock, verifier } = await world();
    authority.leaseMs = 3_000;
    await clock.pass(LEASE_MS / 3 + 1);
    expect(authority.renewals).toHaveLength(2);
    expect(verifier.state().leaseLeftMs).toBeLessThanOrEqual(3_000);
    await clock.pass(3_001);
    expect(authority.renewals).toHaveLength(5);
  });

  it('is asked for again soon after a failure, and goes on when the authority is back', async () => {
    const { authority, clock, verifier } = await world();
    authority.away = true;
    await clock.pass(LEASE_MS);
    expect(verifier.state().leaseHeld).toBe(false);
    authority.away = false;
    await clock.pass(250);
    expect(verifier.state().leaseHeld).toBe(true);
    expect(verifier.counters.resets).toBe(1);
  });

  it('ended by a clock stepped ahead is renewed with the next check', async () => {
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
      const { question, answer } = authority.renewalsHeld.pop()!;
      await answer({ ...authority.grant(question), ...wrong });
      await started;
      expect(verifier.state().leaseHeld).toBe(false);
      await clock.pass(250);
    }
  });
});

describe('without a lease', () => {
  it('every check asks for itself', async () => {
    const { authority, verifier } = await world({ start: false });
    const { secret } = authority.issue();
    authority.holdLookups = true;
    const checks = [verifier.verify(secret, READ), verifier.verify(secret, READ)];
    await settled();
    expect(authority.lookups).toHaveLength(2);
    for (const { question, answer } of authority.lookupsHeld) await answer(authority.read(question));
    for (const check of checks) expect(await check).toMatchObject({ allowed: true });
    authority.holdLookups = false;
    await verifier.verify(secret, READ);
    expect(authority.lookups).toHaveLength(3);
  });

  it('an authority away is unavailable, never an answer about the token', async () => {
    const { authority, outcome } = await world({ start: false });
    authority.away = true;
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
    await settled();
    const stale = authority.read(asked.hash);
    for (const { hash, facts } of [remembered, asked]) authority.tokens.set(hash, { ...facts, denial: 'revoked' });
    Object.assign(authority, { logId: id() });
    await clock.pass(LEASE_MS / 3 + 1);
    expect(verifier.counters.resets).toBe(2);
    authority.holdLookups = false;
    await authority.lookupsHeld[0]!.answer(stale);
    expect(await check).toMatchObject({ reason: 'revoked' });
    expect(await outcome(remembered.secret)).toBe('revoked');
    expect(verifier.counters.fillsPoisoned).toBe(1);
  });

  it('pinned by a long transaction makes nobody apply an invalidation twice', async () => {
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
  it('answers nothing from memory any more, waits for the renewal in flight, then gives the lease back', async () => {
    const { authority, clock, verifier, outcome } = await world();
    const { secret } = authority.issue();
    await outcome(secret);
    authority.holdRenewals = true;
    await clock.pass(LEASE_MS / 3 + 1);
    const stopped = verifier.stop();
    expect(verifier.verify(secret, READ)).toBeInstanceOf(Promise);
    await settled();
    expect(authority.released).toEqual([]);
    const { question, answer } = authority.renewalsHeld[0]!;
    await answer(authority.grant(question));
    await stopped;
    expect(authority.released).toEqual([authority.verifierId]);
    expect(verifier.state().leaseHeld).toBe(false);
    await clock.pass(LEASE_MS);
    expect(authority.renewals).toHaveLength(2);
  });
});

describe('the identity', () => {
  it('is asked for with the same claim until it is refused', async () => {
    const { authority, clock, verifier } = await world({ start: false });
    authority.away = true;
    await verifier.start();
    await clock.pass(600);
    authority.away = false;
    await clock.pass(LEASE_MS);
    const claims = new Set(authority.renewals.map(({ claim }) => claim));
    expect(claims.size).toBe(1);
    expect(authority.renewals[0]!.claim).toMatch(/^[A-Za-z0-9_-]{32,64}$/);
    expect(authority.renewals.length).toBeGreaterThan(4);
  });

  it('refused ends the lease at once, empties memory, and another claim is taken and told', async () => {
    const { authority, clock, verifier, outcome, refusals } = await world();
    const { secret } = authority.issue();
    await outcome(secret);
    authority.refusal = new RenewalRefused('identity', 'the lease was ended');
    await clock.pass(LEASE_MS / 3 + 1);
    expect(verifier.state().leaseHeld).toBe(false);
    expect(verifier.id).toBeUndefined();
    expect(refusals).toEqual(['the lease was ended']);
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

  it('handed out anew brings a new key, and acknowledgements are by the new one', async () => {
    const { authority, clock, verifier } = await world();
    Object.assign(authority, { verifierId: id(), salt: Buffer.from('another row') });
    await clock.pass(LEASE_MS / 3 + 1);
    const invalidation = authority.invalidate('owner', id());
    await settled();
    expect(authority.acknowledged).toEqual([invalidation.id]);
    expect(verifier.counters.identitiesTaken).toBe(1);
  });

  it('refused for now is asked for rarely, and checks ask the authority meanwhile', async () => {
    const { authority, clock, verifier, outcome } = await world({ start: false });
    const { secret } = authority.issue();
    authority.refusal = new RenewalRefused('later', 'no lease for ten minutes');
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
