import { randomBytes } from 'node:crypto';
import {
  acknowledgementKey,
  canonicalEvent,
  canonicalJson,
  challenge,
  codeForDenial,
  DENIAL_REASONS,
  digestOf,
  ENDPOINTS,
  ERRORS,
  feedKey,
  feedSigner,
  INVALIDATION_EVENT_LENGTH_MAX,
  type Invalidation,
  issueTokenBody,
  PERMISSIONS,
  parseAcknowledgement,
  parseInvalidationEvent,
  readUsageBatch,
  signAcknowledgement,
  signInvalidations,
  signUsageBatch,
  ticketedTokens,
  usageKey,
  usageTicket,
  verifyAcknowledgement,
  verifyInvalidationEvent,
} from '../src/index.js';

const id = (n: number) => `01890000-0000-7000-8000-${n.toString(16).padStart(12, '0')}`;
const secret = randomBytes(32);
const invalidation: Invalidation = { id: id(1), kind: 'token', subject: id(2), cut: true, xid: '770' };

describe('invalidations', () => {
  const signer = feedSigner(secret);
  const key = feedKey(signer.publicKey)!;
  const changes: Partial<Invalidation>[] = [
    { cut: false },
    { subject: id(3) },
    { kind: 'owner' },
    { xid: '771' },
    { id: id(4) },
  ];

  it('are accepted only as signed, all of an event or none', () => {
    const event = signInvalidations(signer, id(9), [invalidation, { ...invalidation, id: id(5) }]);
    const read = parseInvalidationEvent(JSON.stringify(event))!;
    expect(read).toEqual(event);
    expect(verifyInvalidationEvent(key, read)).toEqual(event.invalidations.map((one) => digestOf(id(9), one)));
    const [first, second] = event.invalidations as [Invalidation, Invalidation];
    for (const change of changes)
      expect(
        verifyInvalidationEvent(key, { ...event, invalidations: [first, { ...second, ...change }] }),
      ).toBeUndefined();
    for (const invalidations of [[first], [second, first], [first, second, second]])
      expect(verifyInvalidationEvent(key, { ...event, invalidations })).toBeUndefined();
    expect(verifyInvalidationEvent(key, { ...event, log: id(8) })).toBeUndefined();
    expect(verifyInvalidationEvent(feedKey(feedSigner(randomBytes(32)).publicKey)!, event)).toBeUndefined();
  });

  it('are signed by a key that renewals do not contain: the public key signs nothing', () => {
    expect(signer.publicKey).toHaveLength(32);
    expect(feedSigner(signer.publicKey).id).not.toBe(signer.id);
    expect(feedSigner(secret)).toMatchObject({ id: signer.id, publicKey: signer.publicKey });
    for (const bytes of [new Uint8Array(0), new Uint8Array(31), randomBytes(33)])
      expect(feedKey(bytes)).toBeUndefined();
  });

  it('have a digest of their whole content and their log', () => {
    const digests = [
      digestOf(id(9), invalidation),
      digestOf(id(8), invalidation),
      ...changes.map((change) => digestOf(id(9), { ...invalidation, ...change })),
    ];
    expect(new Set(digests).size).toBe(digests.length);
  });

  it('are at most sixty-four under one signature', () => {
    const many = Array.from({ length: 65 }, () => invalidation);
    expect(() => signInvalidations(signer, id(9), many)).toThrow(RangeError);
    const text = JSON.stringify(signInvalidations(signer, id(9), many.slice(1)));
    expect(text.length).toBeLessThanOrEqual(INVALIDATION_EVENT_LENGTH_MAX);
  });
});

describe('acknowledgements', () => {
  const of = (over: Partial<Parameters<typeof acknowledgementKey>[1]> = {}) =>
    acknowledgementKey(secret, { verifierId: id(5), caller: 'first-party', salt: Buffer.from('row'), ...over });
  const digests = [digestOf(id(9), invalidation)];

  it('are accepted only with the key of this verifier, this caller and this row', () => {
    const event = signAcknowledgement(of(), id(5), digests);
    expect(parseAcknowledgement(JSON.stringify(event))).toEqual(event);
    expect(verifyAcknowledgement(of(), event)).toBe(true);
    for (const over of [{ verifierId: id(6) }, { caller: `token:${id(7)}` }, { salt: Buffer.from('another row') }])
      expect(verifyAcknowledgement(of(over), event)).toBe(false);
  });

  it('cover exactly their digests and their verifier', () => {
    const event = signAcknowledgement(of(), id(5), digests);
    const other = digestOf(id(9), { ...invalidation, kind: 'misses', subject: '' });
    expect(verifyAcknowledgement(of(), { ...event, digests: [other] })).toBe(false);
    expect(verifyAcknowledgement(of(), { ...event, digests: [...digests, other] })).toBe(false);
    expect(verifyAcknowledgement(of(), { ...event, verifier: id(6) })).toBe(false);
  });
});

describe('usage batches', () => {
  const caller = `token:${id(7)}`;
  const batch = { verifier: id(5), sequence: 1, lines: [], denials: [], denialsDropped: 0 };
  const event = signUsageBatch(usageKey(secret, { verifierId: id(5), caller }), caller, batch);

  it('are accepted only unchanged, from their verifier and its caller', () => {
    expect(readUsageBatch([secret], event)).toEqual({ batch, caller });
    expect(readUsageBatch([randomBytes(32), secret], event)).toEqual({ batch, caller });
    const forged = { ...event, body: event.body.replace('"sequence":1', '"sequence":2') };
    expect(readUsageBatch([secret], forged)).toBe('not_authentic');
    expect(readUsageBatch([secret], { ...event, verifier: id(6) })).toBe('not_authentic');
    expect(readUsageBatch([secret], { ...event, caller: 'first-party' })).toBe('not_authentic');
    expect(readUsageBatch([randomBytes(32)], event)).toBe('not_authentic');
  });

  it('that are invalid are dropped as malformed', () => {
    const own = (body: string) => ({
      ...signUsageBatch(usageKey(secret, { verifierId: id(5), caller }), caller, batch),
      body,
    });
    const signed = (body: unknown) =>
      signUsageBatch(usageKey(secret, { verifierId: id(5), caller }), caller, body as typeof batch);
    for (const junk of [
      undefined,
      null,
      {},
      [],
      { ...event, extra: 1 },
      { ...event, caller: 'nobody' },
      { ...event, mac: 1 },
    ])
      expect(readUsageBatch([secret], junk)).toBe('malformed');
    expect(readUsageBatch([secret], own('x'.repeat(6_000_001)))).toBe('malformed');
    const line = {
      tokenId: id(1),
      hourMs: 0,
      route: 'r',
      status: 'allowed',
      ip: '',
      userAgent: '',
      count: 1,
      firstSeenMs: 0,
      lastSeenMs: 0,
    };
    for (const over of [
      { count: 0 },
      { count: 9007199254740991 },
      { count: 1.5 },
      { hourMs: -1 },
      { route: 'x'.repeat(101) },
    ])
      expect(readUsageBatch([secret], signed({ ...batch, lines: [{ ...line, ...over }] }))).toBe('malformed');
    expect(readUsageBatch([secret], signed({ ...batch, verifier: id(5), sequence: 0 }))).toBe('malformed');
  });

  it('count a third party`s tokens only with tickets derived for this caller and this token', () => {
    const ticket = (tokenId: string, by = caller) => ({
      tokenId,
      ticket: usageTicket(secret, { caller: by, tokenId }).toString('base64url'),
    });
    const tickets = [ticket(id(1)), ticket(id(2), `token:${id(8)}`), { ...ticket(id(3)), tokenId: id(4) }];
    expect(ticketedTokens([secret], caller, { ...batch, tickets })).toEqual(new Set([id(1)]));
    expect(ticketedTokens([secret], caller, batch)).toEqual(new Set());
  });
});

describe('errors', () => {
  it('give revoked, expired, disabled and unknown tokens the same code', () => {
    for (const reason of [
      'malformed',
      'bad_checksum',
      'unknown',
      'revoked',
      'expired',
      'disabled',
      'owner_disabled',
      'project_closed',
    ] as const) {
      expect(codeForDenial(reason)).toBe('invalid_token');
    }
  });

  it('map an outage and an unsettled restore to 503 and every other denial to 401, 403 or 429', () => {
    for (const reason of DENIAL_REASONS) {
      const { status } = ERRORS[codeForDenial(reason)];
      expect(reason === 'unavailable' || reason === 'restored' ? [503] : [401, 403, 429]).toContain(status);
    }
  });

  it('challenge as in RFC 6750 section 3', () => {
    expect(challenge('unauthenticated', 'latchkey')).toBe('Bearer realm="latchkey"');
    expect(challenge('insufficient_scope', 'latchkey', ['a:b', 'c:d'])).toBe(
      'Bearer realm="latchkey", error="insufficient_scope", scope="a:b c:d"',
    );
    expect(challenge('unavailable', 'latchkey')).toBeUndefined();
    expect(challenge('restored', 'latchkey')).toBeUndefined();
  });
});

describe('issueTokenBody', () => {
  const fieldsOf = (body: unknown) =>
    issueTokenBody
      .safeParse(body)
      .error?.issues.map((i) => i.path.join('.') || (i.code === 'unrecognized_keys' ? i.keys.join() : ''));
  it('reports the invalid field', () => {
    expect(fieldsOf({})).toEqual(['name']);
    expect(fieldsOf({ name: 'a', ownerId: id(1) })).toEqual(['ownerId']);
    expect(fieldsOf({ name: 'a', scopes: ['*'] })).toEqual(['scopes.0']);
    expect(fieldsOf({ name: 'a', kind: 'prj' })).toEqual(['projectId']);
    expect(fieldsOf({ name: 'a', expiresInSeconds: 5, expiresAt: '2099-01-01T00:00:00Z' })).toEqual(['expiresAt']);
    expect(fieldsOf({ name: 'a\u202eb' })).toEqual(['name']);
    expect(fieldsOf({ name: 'a', metadata: { 'a b': 'x' } })).toEqual(['metadata.a b']);
  });
});

it('no call is listed twice', () => {
  const calls = Object.values(ENDPOINTS).map((e) => `${e.method} ${e.path}`);
  expect(new Set(calls).size).toBe(calls.length);
});

it('the permission matrix covers every call', () => {
  const covered = new Set(PERMISSIONS.map(({ call }) => call));
  expect(Object.keys(ENDPOINTS).filter((name) => !covered.has(name as keyof typeof ENDPOINTS))).toEqual([]);
});

it('an audit event is hashed as the canonical JSON (RFC 8785) of its fields', () => {
  const actor = { type: 'user', id: id(1), name: 'Ada "\u2028" Lovelace\n' };
  const subject = { type: 'token', id: id(2), name: 'déploiement \ud800' };
  const full = {
    id: id(3),
    at: '2026-01-02T03:04:05.678Z',
    actor,
    action: 'token.issued',
    tokenId: id(2),
    projectId: id(4),
    subject,
    ip: '192.0.2.1',
    userAgent: 'curl/8 \\',
    requestId: 'r-1',
    details: { z: [1, null, { b: 1e21, a: -0 }], é: true },
  };
  const bare = { ...full, tokenId: null, projectId: null, subject: null, ip: null, userAgent: null, requestId: null };
  const system = { ...bare, actor: { type: 'system', id: null, name: 'Latchkey' }, details: {} };
  for (const event of [full, bare, system]) expect(canonicalEvent(event)).toBe(canonicalJson({ v: 1, ...event }));
});
