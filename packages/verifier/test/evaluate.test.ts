import { id, world } from './world.js';

describe('a check', () => {
  const project = id();
  const elsewhere = id();

  it('returns the principal with its scopes in the project', async () => {
    const { authority, verifier } = await world();
    const { secret, snapshot } = authority.issue({
      scopes: ['demo:read'],
      grants: [{ project, scopes: ['demo:read', 'demo:write'] }],
      expiresAtMs: Date.UTC(2031, 0, 1),
      rateLimit: { limit: 5, windowSeconds: 60 },
    });
    expect(await verifier.verify(secret, { scopes: ['demo:write'], project })).toEqual({
      allowed: true,
      principal: {
        tokenId: snapshot.id,
        kind: 'pat',
        ownerType: 'user',
        ownerId: snapshot.ownerId,
        project,
        scopes: ['demo:read', 'demo:write'],
        expiresAtMs: Date.UTC(2031, 0, 1),
        rates: [{ bucket: '', limit: 5, windowSeconds: 60 }],
      },
    });
  });

  it('of a personal token uses its scopes in the project, or outside any; another project is denied', async () => {
    const { authority, outcome } = await world();
    const { secret } = authority.issue({ scopes: ['a:x'], grants: [{ project, scopes: ['b:x'] }] });
    expect(await outcome(secret, { scopes: ['a:x'] })).toBe('allowed');
    expect(await outcome(secret, { scopes: ['b:x'] })).toBe('insufficient_scope');
    expect(await outcome(secret, { scopes: ['b:x'], project })).toBe('allowed');
    expect(await outcome(secret, { scopes: ['a:x'], project })).toBe('insufficient_scope');
    expect(await outcome(secret, { scopes: [], project: elsewhere })).toBe('wrong_project');
  });

  it('of an administrator uses the scopes outside any project in every project', async () => {
    const { authority, outcome } = await world();
    const { secret } = authority.issue({ scopes: ['a:x'], allProjects: true });
    expect(await outcome(secret, { scopes: ['a:x'], project })).toBe('allowed');
    expect(await outcome(secret, { scopes: ['b:x'], project })).toBe('insufficient_scope');
  });

  it('of a project token uses its scopes, only in its project', async () => {
    const { authority, outcome } = await world();
    const { secret } = authority.issue({
      kind: 'prj',
      ownerType: 'project',
      ownerId: project,
      project,
      scopes: ['a:x'],
    });
    expect(await outcome(secret, { scopes: ['a:x'] })).toBe('allowed');
    expect(await outcome(secret, { scopes: ['a:x'], project })).toBe('allowed');
    expect(await outcome(secret, { scopes: ['a:x'], project: elsewhere })).toBe('wrong_project');
  });

  it('denies a token from its expiry on, by the local wall clock, in memory or not', async () => {
    const { authority, clock, verifier, outcome } = await world();
    const { secret } = authority.issue({ expiresAtMs: clock.wallMs() + 2_000 });
    expect(await outcome(secret)).toBe('allowed');
    await clock.pass(1_999);
    expect(await outcome(secret)).toBe('allowed');
    await clock.pass(1);
    expect(await outcome(secret)).toBe('expired');
    expect(verifier.counters.fills).toBe(1);
  });

  it.each(['revoked', 'disabled', 'owner_disabled', 'project_closed', 'restored'])(
    'remembers the denial of a token that is %s',
    async (denial) => {
      const { authority, verifier, outcome } = await world();
      const { secret, snapshot } = authority.issue({ denial });
      for (let i = 0; i < 3; i++) expect(await outcome(secret)).toBe(denial);
      expect(await verifier.verify(secret, { scopes: [] })).toEqual({
        allowed: false,
        reason: denial,
        tokenId: snapshot.id,
      });
      expect(verifier.counters.fills).toBe(1);
    },
  );

  it.each([
    ['192.0.2.7', true],
    ['::ffff:192.0.2.7', true],
    ['198.51.100.9', true],
    ['198.51.100.10', false],
    ['2001:db8:1::5', true],
    ['2001:db8:2::5', false],
    ['192.0.3.1', false],
    ['nonsense', false],
    ['', false],
  ])('from %s passes the token`s addresses: %s', async (ip, passes) => {
    const { authority, outcome } = await world();
    const { secret } = authority.issue({ allowedIps: ['192.0.2.0/24', '2001:db8:1::/48', '198.51.100.9'] });
    expect(await outcome(secret, { scopes: [], ip })).toBe(passes ? 'allowed' : 'address_not_allowed');
  });

  it('never matches an IPv4 address with an IPv6 block, mapped or not', async () => {
    const { authority, outcome } = await world();
    const { secret } = authority.issue({ allowedIps: ['::/0'] });
    expect(await outcome(secret, { scopes: [], ip: '2001:db8::1' })).toBe('allowed');
    expect(await outcome(secret, { scopes: [], ip: '10.0.0.1' })).toBe('address_not_allowed');
    expect(await outcome(secret, { scopes: [], ip: '::ffff:10.0.0.1' })).toBe('address_not_allowed');
  });

  it('allows nothing by invalid addresses', async () => {
    const { authority, outcome } = await world();
    const { secret } = authority.issue({ allowedIps: ['nonsense/8', '10.0.0.0/', '10.0.0.0/33', '10.0.0.0/x'] });
    expect(await outcome(secret, { scopes: [], ip: '10.0.0.1' })).toBe('address_not_allowed');
  });
});
