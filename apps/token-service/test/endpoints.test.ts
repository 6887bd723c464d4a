import { connect } from 'node:net';
import { CALLER_ADDRESS_HEADER, GATEWAY_PROOF_HEADER, gatewayProof, type Problem } from '@latchkey/contracts';
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

/** What the door answers to bytes as they are. */
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

describe('malformed input is refused by the name of what is wrong', () => {
  const long = 'x'.repeat(101);
  test.each<[string, object, string]>([
    ['no name', { body: {} }, 'name'],
    ['an empty name', { body: { name: '   ' } }, 'name'],
    ['a long name', { body: { name: long } }, 'name'],
    ['a control character', { body: { name: 'a\u0000b' } }, 'name'],
    ['a direction-changing character', { body: { name: 'a\u202eb' } }, 'name'],
    ['an unknown field', body({ color: 'red' }), 'color'],
    ['a misspelt field', body({ expiresIn: 3 }), 'expiresIn'],
    ['a foreign kind', body({ kind: 'xyz' }), 'kind'],
    ['a project token without project', body({ kind: 'prj' }), 'projectId'],
    ['a personal token with project', body({ projectId: '01890000-0000-7000-8000-000000000000' }), 'projectId'],
    ['a scope that is none', body({ scopes: ['everything'] }), 'scopes.0'],
    ['a wildcard', body({ scopes: ['tokens:*'] }), 'scopes.0'],
    ['an unknown scope', body({ scopes: ['nothing:here'] }), 'scopes'],
    ['a scope twice', body({ scopes: ['tokens:read', 'tokens:read'] }), 'scopes'],
    ['a past end', body({ expiresAt: '2020-01-01T00:00:00Z' }), 'expiresAt'],
    ['an end beyond a century', body({ expiresAt: '2200-01-01T00:00:00Z' }), 'expiresAt'],
    ['two ends', body({ expiresAt: '2999-01-01T00:00:00Z', expiresInSeconds: 5 }), 'expiresAt'],
    ['no seconds', body({ expiresInSeconds: 0 }), 'expiresInSeconds'],
    ['a fraction of seconds', body({ expiresInSeconds: 1.5 }), 'expiresInSeconds'],
    ['an address that is none', body({ allowedIps: ['10.0.0.256'] }), 'allowedIps.0'],
    ['a prefix too long', body({ allowedIps: ['10.0.0.0/8', '10.0.0.0/33'] }), 'allowedIps.1'],
    ['a rate of nothing', body({ rateLimit: { limit: 0, windowSeconds: 1 } }), 'rateLimit.limit'],
    ['an unknown part of a rate', body({ rateLimit: { limit: 1, windowSeconds: 1, burst: 3 } }), 'rateLimit.burst'],
    ['metadata that is no text', body({ metadata: { a: 1 } }), 'metadata.a'],
    ['a metadata name that is none', body({ metadata: { __proto: 'x' } }), 'metadata.__proto'],
    ['a list', { body: [] }, 'body'],
    ['a text', { raw: '"x"' }, 'body'],
    ['no JSON', { raw: '{"name":' }, 'body'],
    ['a poisoned prototype', { raw: '{"name":"x","__proto__":{"admin":true}}' }, 'body'],
    ['a wrong Idempotency-Key', { ...body({}), headers: { 'idempotency-key': 'x'.repeat(256) } }, 'Idempotency-Key'],
    ['an unknown parameter', { ...body({}), query: { verbose: '1' } }, 'verbose'],
  ])('%s', async (_, send, field) => {
    const answer = await bearer.call<Problem>('POST /v1/tokens', send);
    expect(answer.status).toBe(400);
    expect(answer.headers.get('content-type')).toMatch(/^application\/problem\+json/);
    expect(answer.body).toMatchObject({
      type: 'urn:latchkey:error:invalid_request',
      status: 400,
      code: 'invalid_request',
    });
    expect(answer.body.requestId).toBe(answer.headers.get('x-request-id'));
    expect(answer.body.errors?.map((error) => error.field)).toContain(field);
  });

  test.each<[string, Record<string, string>, string]>([
    ['limit', { limit: '0' }, 'limit'],
    ['a limit that is no number', { limit: 'ten' }, 'limit'],
    ['a limit too high', { limit: '101' }, 'limit'],
    ['status', { status: 'sleeping' }, 'status'],
    ['a cursor', { cursor: 'AAAA' }, 'cursor'],
    ['an owner', { owner: 'you' }, 'owner'],
    ['a NUL in a search', { q: 'a\u0000b' }, 'q'],
  ])('in a query: %s', async (_, query, field) => {
    const answer = await bearer.call<Problem>('GET /v1/tokens', { query });
    expect(answer.status).toBe(400);
    expect(answer.body.errors?.[0]?.field).toBe(field);
  });

  test('an id that is none', async () => {
    const answer = await bearer.call<Problem>('GET /v1/tokens/not-an-id');
    expect(answer.body).toMatchObject({ status: 400, errors: [{ field: 'id' }] });
  });
});

describe('what the door does not serve', () => {
  test.each([
    ['GET /v1/nothing', 404, 'not_found'],
    ['GET /', 404, 'not_found'],
    ['PUT /v1/tokens', 405, 'method_not_allowed'],
    ['PATCH /v1/session', 405, 'method_not_allowed'],
    ['GET /mcp', 405, 'method_not_allowed'],
  ])('%s', async (target, status, code) => {
    const answer = await bearer.call<Problem>(target);
    expect(answer.status).toBe(status);
    expect(answer.body.code).toBe(code);
    if (status === 405) expect(answer.headers.get('allow')).toBeTruthy();
  });

  test('a body of another type', async () => {
    const send = { raw: 'name=x', headers: { 'content-type': 'application/x-www-form-urlencoded' } };
    expect((await bearer.call('POST /v1/tokens', send)).status).toBe(415);
    expect((await bearer.call('POST /v1/tokens', { raw: 'x', headers: { 'content-type': 'text/plain' } })).status).toBe(
      415,
    );
  });

  test('a body over the limit', async () => {
    const answer = await bearer.call('POST /v1/tokens', {
      raw: JSON.stringify({ name: 'x', description: 'y'.repeat(1_100_000) }),
    });
    expect(answer.status).toBe(413);
    expect(answer.body['code']).toBe('too_large');
  });

  test('a body of a little more than is allowed is refused to a caller that sends all of it first', async () => {
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
    ['much more than is allowed', 'content-length: 100000000'],
    ['an end that it does not tell', 'transfer-encoding: chunked'],
    ['its sender waiting to be asked for it', 'content-length: 1100000', 'expect: 100-continue'],
  ])('a body with %s is not read on after its refusal', async (_, ...more) => {
    const lines = ['POST /v1/tokens HTTP/1.1', 'host: x', `authorization: Bearer ${secret}`, ...more];
    const chunk = more[0]!.startsWith('transfer') ? `100001\r\n${'x'.repeat(0x10_0001)}` : '';
    const text = await rawExchange([...lines, 'content-type: application/json', '', chunk].join('\r\n'));
    expect(text).toMatch(/^(HTTP\/1\.1 100 Continue\r\n\r\n)?HTTP\/1\.1 413 /);
    expect(text.toLowerCase()).toContain('connection: close');
  });

  test('an empty body counts as none where a body may be left out', async () => {
    const { id } = await issue(person);
    const answer = await person.call(`POST /v1/tokens/${id}/revoke`, {
      raw: '',
      headers: { 'content-type': 'application/json' },
    });
    expect(answer.status).toBe(200);
  });
});

describe('credentials', () => {
  test('none: 401 with a plain challenge', async () => {
    const answer = await w.as().call('/v1/tokens');
    expect(answer.status).toBe(401);
    expect(answer.headers.get('www-authenticate')).toBe('Bearer realm="latchkey"');
    expect(answer.body['code']).toBe('unauthenticated');
  });

  test('unknown, revoked, expired and disabled tokens are told apart by nothing but the requestId', async () => {
    const [revoked, expired, disabled] = await Promise.all([1, 2, 3].map(() => issue(person)));
    await person.call(`POST /v1/tokens/${revoked!.id}/revoke`);
    await w.database.query(`UPDATE tokens SET expires_at = now() WHERE id = $1`, [expired!.id]);
    await person.call(`PATCH /v1/tokens/${disabled!.id}`, { body: { disabled: true } });
    const unknown = `lk_pat_${'0'.repeat(36)}`;
    const answers = await Promise.all(
      [unknown, revoked!.secret, expired!.secret, disabled!.secret].map((given) => w.bearer(given).call('/v1/tokens')),
    );
    const seen = answers.map(({ status, headers, body }) => [
      status,
      headers.get('www-authenticate'),
      { ...body, requestId: '' },
    ]);
    for (const one of seen) expect(one).toEqual(seen[0]);
    expect(answers[0]!.status).toBe(401);
  });

  test('with a Bearer header a cookie is ignored', async () => {
    const answer = await w.as({ authorization: 'Bearer rubbish', cookie: person.cookie! }).call('/v1/tokens');
    expect(answer.status).toBe(401);
  });

  test('a token in the query is 400, whatever else there is', async () => {
    for (const caller of [w.as(), bearer, person]) {
      const answer = await caller.call('/v1/tokens', { query: { access_token: secret } });
      expect(answer.status).toBe(400);
      expect(answer.text).not.toContain(secret);
    }
  });

  test('a token in a form body is 400', async () => {
    const admin = await w.signIn();
    const answer = await admin.call('POST /oauth2/introspect', {
      raw: `access_token=${secret}&token=x`,
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
    });
    expect(answer.status).toBe(400);
  });

  test('headers that are too large, and what is no HTTP, are problems too', async () => {
    const large = await rawExchange(`GET /v1/tokens HTTP/1.1\r\nHost: x\r\nX-Long: ${'x'.repeat(17_000)}\r\n\r\n`);
    expect(large).toMatch(/^HTTP\/1\.1 431 /);
    expect(large).toContain('"code":"header_too_large"');
    expect(await rawExchange('hello\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 /);
  });

  test('a missing scope is 403 and named', async () => {
    const narrow = await issue(person, { scopes: ['tokens:read'] });
    const answer = await w.bearer(narrow.secret).call('POST /v1/tokens', { body: { name: 'x' } });
    expect(answer.status).toBe(403);
    expect(answer.headers.get('www-authenticate')).toBe(
      'Bearer realm="latchkey", error="insufficient_scope", scope="tokens:write"',
    );
  });

  test('an address that is not allowed is 403, and forwarded addresses count only from the gateway', async () => {
    const elsewhere = await issue(person, { allowedIps: ['203.0.113.0/24'] });
    const caller = w.as({ authorization: `Bearer ${elsewhere.secret}`, 'x-forwarded-for': '203.0.113.7' });
    const answer = await caller.call('/v1/tokens/self');
    expect(answer.status).toBe(403);
    expect(answer.body['code']).toBe('address_not_allowed');
    const bare = { authorization: `Bearer ${elsewhere.secret}`, [CALLER_ADDRESS_HEADER]: '203.0.113.7' };
    expect((await w.as(bare).call('/v1/tokens/self')).status).toBe(403);
    expect((await w.as({ ...bare, [GATEWAY_PROOF_HEADER]: 'guessed' }).call('/v1/tokens/self')).status).toBe(403);
    const through = { ...bare, [GATEWAY_PROOF_HEADER]: gatewayProof(GATEWAY_PROOF_SECRET) };
    expect((await w.as(through).call('/v1/tokens/self')).status).toBe(200);
    // What the caller itself wrote into X-Forwarded-For counts for nothing, whichever proxy passed it on.
    const spoofed = {
      ...through,
      [CALLER_ADDRESS_HEADER]: '198.51.100.1',
      'x-forwarded-for': '203.0.113.7, 198.51.100.1',
    };
    expect((await w.as(spoofed).call('/v1/tokens/self')).status).toBe(403);
  });

  test("a token's own rate holds at this door too", async () => {
    const slow = await issue(person, { rateLimit: { limit: 2, windowSeconds: 3600 } });
    const statuses: number[] = [];
    for (let i = 0; i < 4; i++) statuses.push((await w.bearer(slow.secret).call('/v1/tokens/self')).status);
    expect(statuses).toEqual([200, 200, 429, 429]);
  });
});

test('no answer may be kept by caches, and none is sniffed', async () => {
  const answer = await bearer.call('/v1/tokens');
  expect(answer.headers.get('cache-control')).toBe('no-store');
  expect(answer.headers.get('x-content-type-options')).toBe('nosniff');
});

test('the API describes itself to anybody, and the page allows no script', async () => {
  const document = await w.as().call('/v1/openapi.json');
  expect(document.body).toMatchObject({ openapi: expect.stringMatching(/^3\.1/) });
  const page = await w.as().call('/v1/docs');
  expect(page.headers.get('content-type')).toMatch(/^text\/html/);
  expect(page.headers.get('content-security-policy')).toMatch(/^default-src 'none'/);
  expect(page.text).not.toMatch(/<script/i);
});

test('nothing logged holds a secret', () => {
  expect(w.logs()).not.toContain(secret);
  expect(w.logs()).not.toContain(person.cookie!.split('=')[1]!);
});
