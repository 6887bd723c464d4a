import { connect } from 'node:net';
import { gzipSync } from 'node:zlib';
import {
  CALLER_ADDRESS_HEADER,
  GATEWAY_PROOF_HEADER,
  gatewayProof,
  type IssuedToken,
  type Problem,
} from '@latchkey/contracts';
import { GATEWAY_PROOF_SECRET, issue, type Person, type World, world } from './harness.js';

let w: World;
let person: Person;
let bearer: Person;
let secret: string;
beforeAll(async () => {
  w = await world();
  person = await w.member();
  ({ secret } = await issue(person, { scopes: ['tokens:read', 'tokens:write'] }));
  bearer = w.bearer(secret);
});
afterAll(() => w.close());

/** The response of the API port to raw bytes. */
function rawExchange(bytes: string): Promise<string> {
  const { hostname, port } = new URL(w.service.apiUrl);
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname, () => socket.write(bytes));
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk;
    });
    socket.on('end', () => resolve(text)).on('error', reject);
  });
}

const body = (fields: object) => ({ body: { name: 'x', ...fields } });

describe('malformed input', () => {
  const long = 'x'.repeat(101);
  test.each<[string, object, string]>([
    ['no name', { body: {} }, 'name'],
    ['an empty name', { body: { name: '   ' } }, 'name'],
    ['a long name', { body: { name: long } }, 'name'],
    ['a control character', { body: { name: 'a\u0000b' } }, 'name'],
    ['a name that nobody can see', { body: { name: '\u200b\u3164' } }, 'name'],
    ['an hour that does not exist', body({ expiresAt: '2097-01-01T24:00:60Z' }), 'expiresAt'],
    ['a direction-changing character', { body: { name: 'a\u202eb' } }, 'name'],
    ['an unknown field', body({ color: 'red' }), 'color'],
    ['a misspelt field', body({ expiresIn: 3 }), 'expiresIn'],
    ['an unknown kind', body({ kind: 'xyz' }), 'kind'],
    ['a project token without project', body({ kind: 'prj' }), 'projectId'],
    ['a personal token with project', body({ projectId: '01890000-0000-7000-8000-000000000000' }), 'projectId'],
    ['an invalid scope', body({ scopes: ['everything'] }), 'scopes.0'],
    ['a wildcard', body({ scopes: ['tokens:*'] }), 'scopes.0'],
    ['an unknown scope', body({ scopes: ['nothing:here'] }), 'scopes'],
    ['a scope twice', body({ scopes: ['tokens:read', 'tokens:read'] }), 'scopes'],
    ['an expiry in the past', body({ expiresAt: '2020-01-01T00:00:00Z' }), 'expiresAt'],
    ['an expiry beyond a century', body({ expiresAt: '2200-01-01T00:00:00Z' }), 'expiresAt'],
    ['two expiries', body({ expiresAt: '2999-01-01T00:00:00Z', expiresInSeconds: 5 }), 'expiresAt'],
    ['a lifetime of zero', body({ expiresInSeconds: 0 }), 'expiresInSeconds'],
    ['a lifetime with a fraction', body({ expiresInSeconds: 1.5 }), 'expiresInSeconds'],
    ['an invalid address', body({ allowedIps: ['10.0.0.256'] }), 'allowedIps.0'],
    ['an address prefix too long', body({ allowedIps: ['10.0.0.0/8', '10.0.0.0/33'] }), 'allowedIps.1'],
    ['a rate limit of zero', body({ rateLimit: { limit: 0, windowSeconds: 1 } }), 'rateLimit.limit'],
    [
      'an unknown field of a rate limit',
      body({ rateLimit: { limit: 1, windowSeconds: 1, burst: 3 } }),
      'rateLimit.burst',
    ],
    ['metadata that is not text', body({ metadata: { a: 1 } }), 'metadata.a'],
    ['an invalid metadata name', body({ metadata: { __proto: 'x' } }), 'metadata.__proto'],
    ['a list as body', { body: [] }, 'body'],
    ['a string as body', { raw: '"x"' }, 'body'],
    ['a body that is not JSON', { raw: '{"name":' }, 'body'],
    ['a poisoned prototype', { raw: '{"name":"x","__proto__":{"admin":true}}' }, 'body'],
    ['a wrong Idempotency-Key', { ...body({}), headers: { 'idempotency-key': 'x'.repeat(256) } }, 'Idempotency-Key'],
    ['an unknown query parameter', { ...body({}), query: { verbose: '1' } }, 'verbose'],
  ])('POST /v1/tokens with %s is rejected by the name of the field', async (_, send, field) => {
    const response = await bearer.call<Problem>('POST /v1/tokens', send);
    expect(response.status).toBe(400);
    expect(response.headers.get('content-type')).toMatch(/^application\/problem\+json/);
    expect(response.body).toMatchObject({
      type: 'urn:latchkey:error:invalid_request',
      status: 400,
      code: 'invalid_request',
    });
    expect(response.body.requestId).toBe(response.headers.get('x-request-id'));
    expect(response.body.errors?.map((error) => error.field)).toContain(field);
  });

  test.each<[string, Record<string, string>, string]>([
    ['a limit of zero', { limit: '0' }, 'limit'],
    ['a limit that is not a number', { limit: 'ten' }, 'limit'],
    ['a limit too high', { limit: '101' }, 'limit'],
    ['an unknown status', { status: 'sleeping' }, 'status'],
    ['an invalid cursor', { cursor: 'AAAA' }, 'cursor'],
    ['an invalid owner', { owner: 'you' }, 'owner'],
    ['a NUL in a search', { q: 'a\u0000b' }, 'q'],
  ])('GET /v1/tokens with %s is rejected by the name of the parameter', async (_, query, field) => {
    const response = await bearer.call<Problem>('GET /v1/tokens', { query });
    expect(response.status).toBe(400);
    expect(response.body.errors?.[0]?.field).toBe(field);
  });

  test('an invalid token id is rejected by name', async () => {
    const response = await bearer.call<Problem>('GET /v1/tokens/not-an-id');
    expect(response.body).toMatchObject({ status: 400, errors: [{ field: 'id' }] });
  });
});

describe('unsupported requests', () => {
  test.each([
    ['GET /v1/nothing', 404, 'not_found'],
    ['GET /', 404, 'not_found'],
    ['PUT /v1/tokens', 405, 'method_not_allowed'],
    ['PATCH /v1/session', 405, 'method_not_allowed'],
    ['GET /mcp', 405, 'method_not_allowed'],
  ])('%s returns %i %s', async (target, status, code) => {
    const response = await bearer.call<Problem>(target);
    expect(response.status).toBe(status);
    expect(response.body.code).toBe(code);
    if (status === 405) expect(response.headers.get('allow')).toBeTruthy();
  });

  test('a request body of another content type returns 415', async () => {
    const send = { raw: 'name=x', headers: { 'content-type': 'application/x-www-form-urlencoded' } };
    expect((await bearer.call('POST /v1/tokens', send)).status).toBe(415);
    expect((await bearer.call('POST /v1/tokens', { raw: 'x', headers: { 'content-type': 'text/plain' } })).status).toBe(
      415,
    );
  });

  test('a request body over the limit returns 413', async () => {
    const response = await bearer.call('POST /v1/tokens', {
      raw: JSON.stringify({ name: 'x', description: 'y'.repeat(1_100_000) }),
    });
    expect(response.status).toBe(413);
    expect(response.body['code']).toBe('too_large');
  });

  test('a caller that sends all of a body slightly over the limit gets 413, and can reuse its connection', async () => {
    const head = (line: string, ...more: string[]) =>
      [line, 'host: x', `authorization: Bearer ${secret}`, ...more, '', ''].join('\r\n');
    const large = JSON.stringify({ name: 'x'.repeat(1_100_000) });
    const json = ['content-type: application/json', `content-length: ${large.length}`];
    const text = await rawExchange(
      `${head('POST /v1/tokens HTTP/1.1', ...json)}${large}${head('GET /v1/scopes HTTP/1.1', 'connection: close')}`,
    );
    expect(text.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 413', 'HTTP/1.1 200']);
  });

  test.each([
    ['a length far over the limit', 'content-length: 100000000'],
    ['no declared length', 'transfer-encoding: chunked'],
    ['Expect: 100-continue', 'content-length: 1100000', 'expect: 100-continue'],
  ])('a rejected request body with %s is not read further', async (_, ...more) => {
    const lines = ['POST /v1/tokens HTTP/1.1', 'host: x', `authorization: Bearer ${secret}`, ...more];
    const chunk = more[0]!.startsWith('transfer') ? `100001\r\n${'x'.repeat(0x10_0001)}` : '';
    const text = await rawExchange([...lines, 'content-type: application/json', '', chunk].join('\r\n'));
    expect(text).toMatch(/^(HTTP\/1\.1 100 Continue\r\n\r\n)?HTTP\/1\.1 413 /);
    expect(text.toLowerCase()).toContain('connection: close');
  });

  test('a body that is not UTF-8 is refused: it would be stored as another text', async () => {
    const raw = Buffer.from([...Buffer.from('{"name":"caf'), 0xe9, ...Buffer.from('"}')]);
    const response = await bearer.call<Problem>('POST /v1/tokens', { raw });
    expect([response.status, response.body.errors]).toEqual([400, [{ field: 'body', message: 'is not valid UTF-8' }]]);
  });

  test('a body with a content coding gets 415, and Accept-Encoding says which is accepted', async () => {
    const response = await bearer.call<Problem>('POST /v1/tokens', {
      raw: gzipSync('{"name":"x"}'),
      headers: { 'content-encoding': 'gzip' },
    });
    expect([response.status, response.headers.get('accept-encoding')]).toEqual([415, 'identity']);
  });

  test.each(['POST /v1/tokens', 'POST /mcp'])('%s takes a media type in any case', async (target) => {
    const given = target === 'POST /mcp' ? { jsonrpc: '2.0', id: 1, method: 'ping' } : { name: 'any case' };
    const headers = {
      'content-type': 'Application/JSON; charset=utf-8',
      accept: 'application/json, text/event-stream',
    };
    const response = await bearer.call(target, { raw: JSON.stringify(given), headers });
    expect(response.status).toBeLessThan(300);
  });

  test.each([
    ['2097-01-01t00:00:00z', '2097-01-01T00:00:00.000Z'],
    ['2096-12-31T23:59:60Z', '2096-12-31T23:59:59.000Z'],
    ['2096-12-31T23:59:60.5+00:00', '2096-12-31T23:59:59.500Z'],
  ])('a time may be %s (RFC 3339 section 5.6)', async (expiresAt, read) => {
    const response = await person.call<IssuedToken>('POST /v1/tokens', { body: { name: 'x', expiresAt } });
    expect([response.status, response.body.expiresAt]).toEqual([201, read]);
  });

  test('an empty request body counts as absent where a body is optional', async () => {
    const { id } = await issue(person);
    const response = await person.call(`POST /v1/tokens/${id}/revoke`, {
      raw: '',
      headers: { 'content-type': 'application/json' },
    });
    expect(response.status).toBe(200);
  });
});

describe('credentials', () => {
  test('a request without credentials gets 401 with a plain challenge', async () => {
    const response = await w.as().call('/v1/tokens');
    expect(response.status).toBe(401);
    expect(response.headers.get('www-authenticate')).toBe('Bearer realm="latchkey"');
    expect(response.body['code']).toBe('unauthenticated');
  });

  test('responses to unknown, revoked, expired and disabled tokens differ in nothing but the requestId', async () => {
    const [revoked, expired, disabled] = await Promise.all([1, 2, 3].map(() => issue(person)));
    await person.call(`POST /v1/tokens/${revoked!.id}/revoke`);
    await w.database.query(`UPDATE tokens SET expires_at = now() WHERE id = $1`, [expired!.id]);
    await person.call(`PATCH /v1/tokens/${disabled!.id}`, { body: { disabled: true } });
    const unknown = `lk_pat_${'0'.repeat(36)}`;
    const responses = await Promise.all(
      [unknown, revoked!.secret, expired!.secret, disabled!.secret].map((given) => w.bearer(given).call('/v1/tokens')),
    );
    const seen = responses.map(({ status, headers, body }) => [
      status,
      headers.get('www-authenticate'),
      { ...body, requestId: '' },
    ]);
    for (const one of seen) expect(one).toEqual(seen[0]);
    expect(responses[0]!.status).toBe(401);
  });

  test('with a Bearer header a cookie is ignored', async () => {
    const response = await w.as({ authorization: 'Bearer rubbish', cookie: person.cookie! }).call('/v1/tokens');
    expect(response.status).toBe(401);
  });

  test('a token in the query gets 400, whatever other credentials are sent', async () => {
    for (const caller of [w.as(), bearer, person]) {
      const response = await caller.call('/v1/tokens', { query: { access_token: secret } });
      expect(response.status).toBe(400);
      expect(response.text).not.toContain(secret);
    }
  });

  test('an access_token in a form body gets 400', async () => {
    const admin = await w.signIn();
    const response = await admin.call('POST /oauth2/introspect', {
      raw: `access_token=${secret}&token=x`,
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
    });
    expect(response.status).toBe(400);
  });

  test('headers that are too large get a 431 problem, and input that is not HTTP gets 400', async () => {
    const large = await rawExchange(`GET /v1/tokens HTTP/1.1\r\nHost: x\r\nX-Long: ${'x'.repeat(17_000)}\r\n\r\n`);
    expect(large).toMatch(/^HTTP\/1\.1 431 /);
    expect(large).toContain('"code":"header_too_large"');
    expect(await rawExchange('hello\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 /);
  });

  test('a missing scope gets 403 and is named in the challenge', async () => {
    const narrow = await issue(person, { scopes: ['tokens:read'] });
    const response = await w.bearer(narrow.secret).call('POST /v1/tokens', { body: { name: 'x' } });
    expect(response.status).toBe(403);
    expect(response.headers.get('www-authenticate')).toBe(
      'Bearer realm="latchkey", error="insufficient_scope", scope="tokens:write"',
    );
  });

  test('an address that is not allowed gets 403, and a forwarded address counts only from a gateway', async () => {
    const elsewhere = await issue(person, { allowedIps: ['203.0.113.0/24'] });
    const caller = w.as({ authorization: `Bearer ${elsewhere.secret}`, 'x-forwarded-for': '203.0.113.7' });
    const response = await caller.call('/v1/tokens/self');
    expect(response.status).toBe(403);
    expect(response.body['code']).toBe('address_not_allowed');
    const bare = { authorization: `Bearer ${elsewhere.secret}`, [CALLER_ADDRESS_HEADER]: '203.0.113.7' };
    expect((await w.as(bare).call('/v1/tokens/self')).status).toBe(403);
    expect((await w.as({ ...bare, [GATEWAY_PROOF_HEADER]: 'guessed' }).call('/v1/tokens/self')).status).toBe(403);
    const through = { ...bare, [GATEWAY_PROOF_HEADER]: gatewayProof(GATEWAY_PROOF_SECRET) };
    expect((await w.as(through).call('/v1/tokens/self')).status).toBe(200);
    // What the caller itself wrote into X-Forwarded-For is ignored, whichever proxy passed it on.
    const spoofed = {
      ...through,
      [CALLER_ADDRESS_HEADER]: '198.51.100.1',
      'x-forwarded-for': '203.0.113.7, 198.51.100.1',
    };
    expect((await w.as(spoofed).call('/v1/tokens/self')).status).toBe(403);
  });

  test("a token's own rate limit applies to the management API too", async () => {
    const slow = await issue(person, { rateLimit: { limit: 2, windowSeconds: 3600 } });
    const statuses: number[] = [];
    for (let i = 0; i < 4; i++) statuses.push((await w.bearer(slow.secret).call('/v1/tokens/self')).status);
    expect(statuses).toEqual([200, 200, 429, 429]);
  });
});

test('responses forbid caching and content sniffing', async () => {
  const response = await bearer.call('/v1/tokens');
  expect(response.headers.get('cache-control')).toBe('no-store');
  expect(response.headers.get('x-content-type-options')).toBe('nosniff');
});

test('the OpenAPI document and its page are public, and the page allows no script', async () => {
  const document = await w.as().call('/v1/openapi.json');
  expect(document.body).toMatchObject({ openapi: expect.stringMatching(/^3\.1/) });
  const page = await w.as().call('/v1/docs');
  expect(page.headers.get('content-type')).toMatch(/^text\/html/);
  expect(page.headers.get('content-security-policy')).toMatch(/^default-src 'none'/);
  expect(page.text).not.toMatch(/<script/i);
});

test('the log contains no secret', () => {
  expect(w.logs()).not.toContain(secret);
  expect(w.logs()).not.toContain(person.cookie!.split('=')[1]!);
});
