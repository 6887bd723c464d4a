import { FakeStream, flushPromises, id, LEASE_MS, READ, world } from './world.js';

async function watched(snapshot: Parameters<Awaited<ReturnType<typeof world>>['authority']['issue']>[0] = {}) {
  const here = await world();
  const token = here.authority.issue(snapshot);
  const stream = new FakeStream();
  expect(await here.outcome(token.secret)).toBe('allowed');
  const close = here.verifier.watch(token.secret, READ, stream);
  return { ...here, ...token, stream, close };
}

describe('a stream', () => {
  it('is cut before the acknowledgement of its token`s revocation is sent', async () => {
    const { authority, hash, stream } = await watched();
    const cutsAtAcknowledgement: number[] = [];
    const acknowledge = authority.acknowledge.bind(authority);
    authority.acknowledge = (text) => {
      cutsAtAcknowledgement.push(stream.cuts.length);
      return acknowledge(text);
    };
    authority.revoke(hash);
    expect(cutsAtAcknowledgement).toEqual([1]);
    expect(stream.cuts).toEqual(['revoked']);
  });

  it('is cut when the invalidation arrives by renewal', async () => {
    const { authority, clock, hash, stream } = await watched();
    authority.feedDown = true;
    authority.revoke(hash);
    await clock.pass(LEASE_MS / 3 + 1);
    expect(stream.cuts).toEqual(['revoked']);
  });

  it('is cut by invalidations of its ancestor, owner, project or everything, and by no other', async () => {
    const [ancestor, owner, project] = [id(), id(), id()];
    for (const [kind, subject, cut] of [
      ['token', ancestor, 1],
      ['owner', owner, 1],
      ['project', project, 1],
      ['everything', '', 1],
      ['token', id(), 0],
      ['misses', '', 0],
    ] as const) {
      const { authority, stream } = await watched({
        ancestors: [id(), ancestor],
        ownerId: owner,
        grants: [{ project, scopes: [] }],
      });
      authority.invalidate(kind, subject, true);
      expect(stream.cuts).toHaveLength(cut);
    }
  });

  it('is checked again after an invalidation that does not cut, and stays open when still allowed', async () => {
    const { authority, clock, snapshot, stream, verifier } = await watched();
    authority.invalidate('owner', snapshot.ownerId);
    await clock.pass(1_000);
    expect(stream.cuts).toEqual([]);
    expect(verifier.counters.fills).toBe(2);
  });

  it('is cut when its token no longer meets the requirement', async () => {
    const { authority, hash, snapshot, stream } = await watched();
    authority.tokens.set(hash, { ...snapshot, scopes: [] });
    authority.invalidate('token', snapshot.id);
    await flushPromises();
    expect(stream.cuts).toEqual(['insufficient_scope']);
  });

  it('is cut as restored when its token turns out to be from before an unsettled restore', async () => {
    const { authority, hash, snapshot, stream } = await watched();
    authority.tokens.set(hash, { ...snapshot, denial: 'restored' });
    authority.invalidate('token', snapshot.id);
    await flushPromises();
    expect(stream.cuts).toEqual(['restored']);
  });

  it('is cut when the new check gets no response within 250 ms', async () => {
    const { authority, clock, snapshot, stream } = await watched();
    authority.holdLookups = true;
    authority.invalidate('token', snapshot.id);
    await clock.pass(249);
    expect(stream.cuts).toEqual([]);
    await clock.pass(1);
    expect(stream.cuts).toEqual(['unavailable']);
    await authority.pendingLookups[0]!.respond(authority.read(authority.pendingLookups[0]!.request));
    expect(stream.cuts).toEqual(['unavailable']);
  });

  it('is affected by projects that its token has gained since', async () => {
    const { authority, hash, snapshot, stream } = await watched();
    const project = id();
    authority.tokens.set(hash, { ...snapshot, grants: [{ project, scopes: [] }] });
    authority.invalidate('owner', snapshot.ownerId);
    await flushPromises();
    authority.invalidate('project', project, true);
    expect(stream.cuts).toEqual(['revoked']);
  });

  it('is cut exactly when its token expires', async () => {
    const { clock, stream } = await watched({ expiresAtMs: Date.UTC(2030, 0, 1) + 90_000 });
    await clock.pass(89_999);
    expect(stream.cuts).toEqual([]);
    await clock.pass(1);
    expect(stream.cuts).toEqual(['expired']);
  });

  it('is cut within a second when the wall clock is stepped past its token`s expiry', async () => {
    const { clock, stream } = await watched({ expiresAtMs: Date.UTC(2030, 0, 1) + 3_600_000 });
    clock.stepWall(3_600_000);
    await clock.pass(1_000);
    expect(stream.cuts).toEqual(['expired']);
  });

  it('whose token is revoked between the check and the watch is cut', async () => {
    const { authority, outcome, verifier } = await world();
    const { secret, hash } = authority.issue();
    await outcome(secret);
    authority.revoke(hash);
    const stream = new FakeStream();
    verifier.watch(secret, READ, stream);
    await flushPromises();
    expect(stream.cuts).toEqual(['revoked']);
  });

  it('whose token is not known yet is cut by any cutting invalidation, which can affect it', async () => {
    const { authority, verifier } = await world();
    const { secret } = authority.issue();
    authority.holdLookups = true;
    const stream = new FakeStream();
    verifier.watch(secret, READ, stream);
    authority.invalidate('token', id(), true);
    expect(stream.cuts).toEqual(['unavailable']);
  });

  it.each(Array.from({ length: 16 }, (_, turns) => turns))(
    'whose check an invalidation overtakes is checked again (%i turns later)',
    async (turns) => {
      const { authority, verifier } = await world();
      const { secret, hash, snapshot } = authority.issue();
      authority.holdLookups = true;
      const stream = new FakeStream();
      verifier.watch(secret, READ, stream);
      const responded = authority.pendingLookups[0]!.respond(authority.read(hash));
      authority.holdLookups = false;
      for (let i = 0; i < turns; i++) await Promise.resolve();
      authority.tokens.set(hash, { ...snapshot, scopes: [] });
      authority.invalidate('token', snapshot.id);
      await responded;
      await flushPromises();
      expect(stream.cuts).toEqual(['insufficient_scope']);
    },
  );

  it('outlives an expired lease by at most one lease, unless its token can be checked', async () => {
    const { authority, clock, stream } = await watched();
    authority.unavailable = true;
    await clock.pass(2 * LEASE_MS - 251);
    expect(stream.cuts).toEqual([]);
    await clock.pass(251);
    expect(stream.cuts).toEqual(['unavailable']);
  });

  it('stays open without a lease while its token can be checked, and is cut once it is revoked', async () => {
    const { authority, clock, hash, stream } = await watched();
    authority.feedDown = true;
    authority.holdRenewals = true;
    await clock.pass(5 * LEASE_MS);
    expect(stream.cuts).toEqual([]);
    authority.revoke(hash);
    await clock.pass(LEASE_MS / 3 + 1_000);
    expect(stream.cuts).toEqual(['revoked']);
  });

  it('is checked at once when its process resumes after a pause', async () => {
    const { authority, clock, hash, stream } = await watched();
    authority.feedDown = true;
    authority.revoke(hash);
    clock.stall(10 * LEASE_MS);
    authority.holdRenewals = true;
    await clock.pass(1);
    expect(stream.cuts).toEqual(['revoked']);
  });

  it('is checked after a reset before the next cursor is sent, or cut', async () => {
    const { authority, clock, stream, verifier } = await watched();
    Object.assign(authority, { logId: id() });
    authority.holdLookups = true;
    await clock.pass(LEASE_MS / 3 + 1);
    expect(verifier.counters.resets).toBe(2);
    expect(stream.cuts).toEqual([]);
    const cutsAtRenewal: number[] = [];
    const renew = authority.renew.bind(authority);
    authority.renew = (request) => {
      cutsAtRenewal.push(stream.cuts.length);
      return renew(request);
    };
    await clock.pass(LEASE_MS / 3);
    expect(cutsAtRenewal).toEqual([1]);
    expect(stream.cuts).toEqual(['unavailable']);
  });

  it('not checked since a reset is cut before a revocation that the reset covers is acknowledged', async () => {
    const { authority, clock, hash, stream } = await watched();
    Object.assign(authority, { logId: id() });
    authority.feedDown = true;
    const revoked = authority.revoke(hash);
    authority.holdLookups = true;
    await clock.pass(LEASE_MS / 3 + 1);
    expect(stream.cuts).toEqual([]);
    authority.feedDown = false;
    const cutsAtAcknowledgement: number[] = [];
    const acknowledge = authority.acknowledge.bind(authority);
    authority.acknowledge = (text) => {
      cutsAtAcknowledgement.push(stream.cuts.length);
      return acknowledge(text);
    };
    authority.push(revoked);
    expect(cutsAtAcknowledgement).toEqual([1]);
  });

  it('checked since a reset is not cut when an old message is repeated', async () => {
    const { authority, clock, snapshot, stream } = await watched();
    authority.feedDown = true;
    const old = authority.invalidate('token', snapshot.id, true);
    Object.assign(authority, { logId: id() });
    await clock.pass(LEASE_MS / 3 + 1);
    authority.push(old);
    await clock.pass(0);
    expect(stream.cuts).toEqual([]);
  });

  it('is cut without a lease by an invalidation below the cursor: transaction ids repeat after a restore', async () => {
    const { authority, clock, snapshot, stream } = await watched();
    authority.feedDown = true;
    const again = authority.invalidate('token', snapshot.id, true);
    Object.assign(authority, { logId: id() });
    await clock.pass(LEASE_MS / 3 + 1);
    authority.holdRenewals = true;
    await clock.pass(LEASE_MS);
    expect(stream.cuts).toEqual([]);
    authority.push(again);
    expect(stream.cuts).toEqual(['revoked']);
  });

  it('closed by its own side is not cut and is no longer watched', async () => {
    const { authority, close, hash, stream, verifier } = await watched();
    close();
    close();
    authority.revoke(hash);
    expect(stream.cuts).toEqual([]);
    expect(verifier.state().streams).toBe(0);
  });

  it('is cut at most once, and one whose cut throws keeps no other open', async () => {
    const { authority, hash, secret, stream, verifier } = await watched();
    const second = new FakeStream();
    stream.cut = () => {
      throw new Error('broken');
    };
    verifier.watch(secret, READ, second);
    authority.revoke(hash);
    await verifier.stop();
    expect(second.cuts).toEqual(['revoked']);
    expect(verifier.counters).toMatchObject({ streamsCut: 2, streamCutsFailed: 1 });
    expect(authority.acknowledged).toHaveLength(1);
  });

  it('is cut when the verifier stops, before the lease is released', async () => {
    const { authority, stream, verifier } = await watched();
    const stopped = verifier.stop();
    expect(stream.cuts).toEqual(['unavailable']);
    expect(authority.released).toEqual([]);
    await stopped;
  });

  it('beyond streamsMax is refused', async () => {
    const { authority, outcome, verifier } = await world({ limits: { streamsMax: 1 } });
    const { secret } = authority.issue();
    await outcome(secret);
    const [first, second] = [new FakeStream(), new FakeStream()];
    verifier.watch(secret, READ, first);
    verifier.watch(secret, READ, second);
    expect([first.cuts, second.cuts]).toEqual([[], ['unavailable']]);
  });
});
