import { randomBytes } from 'node:crypto';
import {
  canonicalEvent,
  canonicalJson,
  challenge,
  codeForDenial,
  DENIAL_REASONS,
  ENDPOINTS,
  ERRORS,
  feedKey,
  type Invalidation,
  issueTokenBody,
  PERMISSIONS,
  readAcknowledgement,
  readInvalidation,
  readUsageBatch,
  signAcknowledgement,
  signInvalidation,
  signUsageBatch,
  verifierKey,
} from '../src/index.js';

const id = (n: number) => `01890000-0000-7000-8000-${n.toString(16).padStart(12, '0')}`;
const secret = randomBytes(32);
const invalidation: Invalidation = { id: id(1), kind: 'token', subject: id(2), cut: true, xid: '770' };

describe('events', () => {
  it('believes an invalidation only as it was signed', () => {
    const event = signInvalidation(feedKey(secret), id(9), invalidation);
    expect(readInvalidation(feedKey(secret), JSON.stringify(event))).toEqual(event);
    expect(readInvalidation(feedKey(randomBytes(32)), JSON.stringify(event))).toBeUndefined();
    for (const change of [{ cut: false }, { subject: id(3) }, { kind: 'owner' }, { xid: '771' }, { id: id(4) }]) {
      const forged = { ...event, invalidation: { ...invalidation, ...change } };
      expect(readInvalidation(feedKey(secret), JSON.stringify(forged))).toBeUndefined();
    }
    expect(readInvalidation(feedKey(secret), JSON.stringify({ ...event, log: id(8) }))).toBeUndefined();
    for (const junk of ['', '{', 'null', '[]', '{"mac":"x"}'])
      expect(readInvalidation(feedKey(secret), junk)).toBeUndefined();
  });

  it('believes an acknowledgement only from the verifier it names', () => {
    const keyOf = (verifier: string) => verifierKey(secret, verifier);
    const event = signAcknowledgement(keyOf(id(5)), id(5), id(1));
    expect(readAcknowledgement(keyOf, JSON.stringify(event))).toEqual(event);
    expect(readAcknowledgement(keyOf, JSON.stringify({ ...event, verifier: id(6) }))).toBeUndefined();
    expect(readAcknowledgement(keyOf, JSON.stringify({ ...event, invalidation: id(7) }))).toBeUndefined();
  });

  it('believes a usage batch only whole and from its verifier', () => {
    const keyOf = (verifier: string) => verifierKey(secret, verifier);
    const batch = { verifier: id(5), sequence: 1, lines: [], denials: [], denialsDropped: 0 };
    const event = signUsageBatch(keyOf(id(5)), batch);
    expect(readUsageBatch(keyOf, event)).toEqual(batch);
    expect(
      readUsageBatch(keyOf, { ...event, body: event.body.replace('"sequence":1', '"sequence":2') }),
    ).toBeUndefined();
    expect(readUsageBatch(keyOf, { ...event, verifier: id(6) })).toBeUndefined();
  });
});

describe('errors', () => {
  it('never tells revoked, expired, disabled and unknown apart', () => {
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

  it('answers an outage with 503 and every other denial with 401, 403 or 429', () => {
    for (const reason of DENIAL_REASONS) {
      const { status } = ERRORS[codeForDenial(reason)];
      expect(reason === 'unavailable' ? [503] : [401, 403, 429]).toContain(status);
    }
  });

  it('challenges as RFC 6750 section 3 words it', () => {
    expect(challenge('unauthenticated', 'latchkey')).toBe('Bearer realm="latchkey"');
    expect(challenge('insufficient_scope', 'latchkey', ['a:b', 'c:d'])).toBe(
      'Bearer realm="latchkey", error="insufficient_scope", scope="a:b c:d"',
    );
    expect(challenge('unavailable', 'latchkey')).toBeUndefined();
  });
});

describe('issueTokenBody', () => {
  const fieldsOf = (body: unknown) =>
    issueTokenBody
      .safeParse(body)
      .error?.issues.map((i) => i.path.join('.') || (i.code === 'unrecognized_keys' ? i.keys.join() : ''));
  it('names the field that is wrong', () => {
    expect(fieldsOf({})).toEqual(['name']);
    expect(fieldsOf({ name: 'a', ownerId: id(1) })).toEqual(['ownerId']);
    expect(fieldsOf({ name: 'a', scopes: ['*'] })).toEqual(['scopes.0']);
    expect(fieldsOf({ name: 'a', kind: 'prj' })).toEqual(['projectId']);
    expect(fieldsOf({ name: 'a', expiresInSeconds: 5, expiresAt: '2099-01-01T00:00:00Z' })).toEqual(['expiresAt']);
    expect(fieldsOf({ name: 'a\u202eb' })).toEqual(['name']);
    expect(fieldsOf({ name: 'a', metadata: { 'a b': 'x' } })).toEqual(['metadata.a b']);
  });
});

it('lists no call twice', () => {
  const calls = Object.values(ENDPOINTS).map((e) => `${e.method} ${e.path}`);
  expect(new Set(calls).size).toBe(calls.length);
});

it('says of every call who may make it', () => {
  const said = new Set(PERMISSIONS.map(({ call }) => call));
  expect(Object.keys(ENDPOINTS).filter((name) => !said.has(name as keyof typeof ENDPOINTS))).toEqual([]);
});

it('hashes of an audit event exactly the canonical JSON (RFC 8785) of its fields', () => {
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
