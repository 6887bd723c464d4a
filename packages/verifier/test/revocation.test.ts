import { id, LEASE_MS, READ, world } from './world.js';

describe('a revocation', () => {
  it('is denied by the next check once it has been acknowledged', async () => {
    const { authority, verifier, outcome } = await world();
    const { secret, hash } = authority.issue();
    expect(await outcome(secret)).toBe('allowed');
    expect(verifier.verify(secret, READ)).toMatchObject({ allowed: true });
    const { id: invalidation } = authority.revoke(hash);
    expect(authority.acknowledged).toEqual([invalidation]);
    expect(await outcome(secret)).toBe('revoked');
    expect(verifier.verify(secret, READ)).toMatchObject({ allowed: false, reason: 'revoked' });
  });

  it('arrives by renewal when every message is lost, and the cursor confirms it', async () => {
    const { authority, clock, outcome } = await world();
    const { secret, hash } = authority.issue();
    await outcome(secret);
    authority.feedDown = true;
    const { xid } = authority.revoke(hash);
    expect(await outcome(secret)).toBe('allowed'); // not returned yet: no verifier has confirmed
    await clock.pass(LEASE_MS / 3 + 1);
    expect(await outcome(secret)).toBe('revoked');
    await clock.pass(LEASE_MS / 3 + 1);
    expect(Number(authority.renewals.at(-1)!.cursor!.xid)).toBeGreaterThan(Number(xid));
  });

  it('is denied by a verifier that cannot renew from the expiry of its lease on', async () => {
    const { authority, clock, outcome, verifier } = await world();
    const { secret, hash } = authority.issue();
    await outcome(secret);
    authority.feedDown = true;
    authority.unavailable = true;
    authority.revoke(hash);
    await clock.pass(LEASE_MS - 1);
    expect(await outcome(secret)).toBe('allowed');
    await clock.pass(1);
    expect(verifier.state().leaseHeld).toBe(false);
    expect(await outcome(secret)).toBe('unavailable');
    authority.unavailable = false;
    authority.holdRenewals = true;
    expect(await outcome(secret)).toBe('revoked'); // by a lookup: no lease is held yet
  });

  it.each(['stall', 'suspend', 'stepWall'] as const)('is denied after a %s as long as the lease', async (what) => {
    const { authority, clock, outcome } = await world();
    const { secret, hash } = authority.issue();
    await outcome(secret);
    authority.feedDown = true;
    authority.holdRenewals = true;
    authority.revoke(hash);
    await clock.pass(1_000);
    clock[what](LEASE_MS - 1_000);
    expect(await outcome(secret)).toBe('revoked');
  });

  it('is denied on time when the wall clock is stepped back', async () => {
    const { authority, clock, outcome } = await world();
    const { secret, hash } = authority.issue();
    await outcome(secret);
    authority.feedDown = true;
    authority.holdRenewals = true;
    authority.revoke(hash);
    clock.stepWall(-3_600_000);
    await clock.pass(LEASE_MS);
    expect(await outcome(secret)).toBe('revoked');
  });

  it('is denied at most 10 ms after a suspension that a wall clock stepped back hides', async () => {
    const { authority, clock, outcome } = await world();
    const { secret, hash } = authority.issue();
    await outcome(secret);
    authority.feedDown = true;
    authority.holdRenewals = true;
    authority.revoke(hash);
    clock.suspend(LEASE_MS);
    clock.stepWall(-LEASE_MS);
    await clock.pass(11);
    expect(await outcome(secret)).toBe('revoked');
  });

  it('also revokes the tokens derived from the token', async () => {
    const { authority, outcome } = await world();
    const parent = authority.issue();
    const child = authority.issue({ ancestors: [parent.snapshot.id] });
    const grandchild = authority.issue({ ancestors: [child.snapshot.id, parent.snapshot.id] });
    for (const { secret } of [parent, child, grandchild]) expect(await outcome(secret)).toBe('allowed');
    for (const { hash, snapshot } of [child, grandchild])
      authority.tokens.set(hash, { ...snapshot, denial: 'revoked' });
    authority.revoke(parent.hash);
    for (const { secret } of [parent, child, grandchild]) expect(await outcome(secret)).toBe('revoked');
  });

  it('of an owner or a project affects every token that depends on it and no other', async () => {
    const { authority, outcome, verifier } = await world();
    const [owner, project] = [id(), id()];
    const touched = [
      authority.issue({ ownerId: owner }),
      authority.issue({ kind: 'prj', ownerType: 'project', ownerId: project, project }),
      authority.issue({ grants: [{ project, scopes: ['demo:read'] }] }),
    ];
    const other = authority.issue({ grants: [{ project: id(), scopes: ['demo:read'] }] });
    for (const { secret } of [...touched, other]) expect(await outcome(secret)).toBe('allowed');
    for (const { hash, snapshot } of touched) authority.tokens.set(hash, { ...snapshot, denial: 'disabled' });
    authority.invalidate('owner', owner);
    authority.invalidate('project', project);
    for (const { secret } of touched) expect(await outcome(secret)).toBe('disabled');
    const { fills } = verifier.counters;
    expect(await outcome(other.secret)).toBe('allowed');
    expect(verifier.counters.fills).toBe(fills);
  });

  it('of everything empties memory', async () => {
    const { authority, outcome } = await world();
    const { secret, hash, snapshot } = authority.issue();
    expect(await outcome(secret)).toBe('allowed');
    authority.tokens.set(hash, { ...snapshot, scopes: [] });
    authority.invalidate('everything');
    expect(await outcome(secret)).toBe('insufficient_scope');
  });

  it('of an unknown kind, from a newer token-service, counts as everything', async () => {
    const { authority, clock, outcome } = await world();
    const { secret, hash, snapshot } = authority.issue();
    await outcome(secret);
    authority.tokens.set(hash, { ...snapshot, denial: 'newer' });
    authority.feedDown = true;
    const invalidation = authority.invalidate('owner', id());
    Object.assign(invalidation, { kind: 'continent' });
    await clock.pass(LEASE_MS / 3 + 1);
    expect(await outcome(secret)).toBe('disabled');
  });
});
