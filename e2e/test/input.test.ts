import { connect } from 'node:net';
import { ENDPOINTS, type Endpoint, type IssuedToken, type Problem, type Project } from '@latchkey/contracts';
import { z } from 'zod';
import { type ApiResponse, type Ask, ask, askRaw, Person } from '../src/caller.js';
import { placeOfRun, readyOf } from '../src/stack.js';

/* What is wrong is named, in a 4xx; nothing a caller can send makes a 5xx. */

const place = placeOfRun();
const { url, apiUrl } = readyOf(place);
let admin: Person;
let project: Project;
let all: IssuedToken;
beforeAll(async () => {
  admin = await Person.admin(place);
  project = await admin.project('Input');
  const { body } = await admin.call<{ items: { name: string }[] }>('GET', '/v1/scopes');
  all = await admin.issue({ scopes: body.items.map(({ name }) => name) });
});

const UNKNOWN_ID = '01890000-0000-7000-8000-0000000000ff';
const JUNK: unknown[] = [
  null,
  true,
  -1,
  1.5,
  1e300,
  '',
  ' ',
  'x'.repeat(100_000),
  'nul\u0000',
  'lone \ud800',
  'turn \u202e',
  '2026-13-45T99:99:99Z',
  'DROP TABLE tokens; --',
  [],
  [[]],
  [null],
  {},
  { $ne: 1 },
  { __proto__: null, constructor: 1 },
];

function expectProblem(response: ApiResponse<Problem>, what: string): void {
  const shown = { what, status: response.status, type: response.headers.get('content-type')?.split(';')[0] };
  expect(shown).toEqual({ what, status: expect.any(Number), type: 'application/problem+json' });
  expect({ what, fine: response.status >= 400 && response.status < 500, status: response.status }).toMatchObject({
    what,
    fine: true,
  });
  expect(response.body).toMatchObject({
    code: expect.any(String),
    title: expect.any(String),
    requestId: expect.any(String),
    status: response.status,
  });
}

/** Calls the token-service itself as a caller with the right: some calls need a person, the others accept a token too. */
async function asAllowed({ scope, method }: Endpoint, target: string, request: Ask): Promise<ApiResponse<Problem>> {
  if (scope !== 'person') return ask<Problem>(apiUrl + target, method, { token: all.secret, ...request });
  return ask<Problem>(apiUrl + target, method, {
    ...request,
    headers: { cookie: admin.cookie, origin: url, ...request.headers },
  });
}
const concrete = ({ path }: Endpoint) => path.replaceAll(/\{[^}]+\}/g, UNKNOWN_ID);
const withBody = Object.entries(ENDPOINTS as Record<string, Endpoint>).filter(
  ([, { body, bodyType }]) => body && bodyType !== 'form',
);
const withQuery = Object.entries(ENDPOINTS as Record<string, Endpoint>).filter(([, { query }]) => query);
const withId = Object.entries(ENDPOINTS as Record<string, Endpoint>).filter(([, { path }]) => path.includes('{id}'));
const fieldsOf = (schema: z.ZodType) => (schema instanceof z.ZodObject ? Object.keys(schema.shape) : []);

describe('bodies', () => {
  it.each(withBody)('%s names every field that is wrong', async (_name, endpoint) => {
    const fields = fieldsOf(endpoint.body!);
    expect(fields.length).toBeGreaterThan(0);
    for (const field of fields) {
      for (const value of JUNK) {
        const body = { [field]: value };
        const parsed = endpoint.body!.safeParse(body);
        const blamed = parsed.error?.issues.some(({ path }) => path[0] === field) ?? false;
        if (!blamed) continue;
        const what = `${endpoint.method} ${endpoint.path} ${field}=${JSON.stringify(value).slice(0, 40)}`;
        const response = await asAllowed(endpoint, concrete(endpoint), { json: body });
        expectProblem(response, what);
        if (response.status !== 400) continue;
        const named = response.body.errors?.map((error) => error.field.split(/[.[]/, 1)[0]);
        expect({ what, named }).toEqual({ what, named: expect.arrayContaining([field]) });
      }
    }
  });

  it.each(withBody)('%s refuses unknown fields by name', async (_name, endpoint) => {
    for (const field of ['colour', '__proto__', 'constructor', 'toString']) {
      const body = `{${JSON.stringify(field)}: 1}`;
      const response = await asAllowed(endpoint, concrete(endpoint), {
        body,
        headers: { 'content-type': 'application/json' },
      });
      expectProblem(response, `${endpoint.path} ${field}`);
    }
    const response = await asAllowed(endpoint, concrete(endpoint), {
      json: { colour: 1 },
    });
    if (response.status === 400) expect(JSON.stringify(response.body.errors)).toContain('colour');
  });

  it.each(withBody)(
    '%s refuses what is no JSON object, other media types, and what is too large',
    async (_name, endpoint) => {
      const json = { 'content-type': 'application/json' };
      const send = (body: string | Uint8Array, headers: Record<string, string> = json) =>
        asAllowed(endpoint, concrete(endpoint), { body, headers });
      for (const body of [
        '{',
        '[]',
        '"x"',
        '1',
        'nul',
        `${'['.repeat(20_000)}${']'.repeat(20_000)}`,
        '{"name":"\\ud800"}',
        '{"a":1,"a":2}',
        '\ufeff{}x',
      ]) {
        expectProblem(await send(body), `${endpoint.path} ${body.slice(0, 20)}`);
      }
      expectProblem(await send(new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])), 'bytes that are no UTF-8');
      expect((await send('name=x', { 'content-type': 'application/x-www-form-urlencoded' })).status).toBe(415);
      expect((await send('<x/>', { 'content-type': 'text/xml' })).status).toBe(415);
      const large = await send(JSON.stringify({ name: 'x'.repeat(1_100_000) }));
      expect({ path: endpoint.path, status: large.status }).toEqual({ path: endpoint.path, status: 413 });
    },
  );
});

describe('queries', () => {
  it.each(withQuery)('%s names every parameter that is wrong', async (_name, endpoint) => {
    for (const field of fieldsOf(endpoint.query!)) {
      for (const value of [
        '',
        ' ',
        '-1',
        '0',
        '1e9',
        'abc',
        'x'.repeat(5_000),
        '\u0000',
        '2026-13-45T99:99:99Z',
        '%',
        '🜚',
        "'; --",
      ]) {
        const blamed = endpoint
          .query!.safeParse({ [field]: value })
          .error?.issues.some(({ path }) => path[0] === field);
        const what = `${endpoint.path}?${field}=${value.slice(0, 30)}`;
        const response = await asAllowed(
          endpoint,
          `${concrete(endpoint)}?${new URLSearchParams({ [field]: value })}`,
          {},
        );
        expect({ what, below500: response.status < 500 }).toEqual({ what, below500: true });
        if (!blamed) continue;
        expectProblem(response, what);
        if (response.status === 400)
          expect({ what, named: [...new Set(response.body.errors?.map((error) => error.field))] }).toEqual({
            what,
            named: [field],
          });
      }
    }
    for (const query of [
      'limit=1&limit=2',
      'colour=red',
      '__proto__=1',
      'constructor=1',
      '%zz=1',
      'limit[]=1',
      'q[$ne]=1',
    ]) {
      const response = await asAllowed(endpoint, `${concrete(endpoint)}?${query}`, {});
      expectProblem(response, `${endpoint.path}?${query}`);
    }
  });

  it('refuse cursors that were never given out', async () => {
    for (const cursor of [
      'x',
      'AAAA',
      Buffer.from('{"id":"x"}').toString('base64url'),
      Buffer.from(JSON.stringify([UNKNOWN_ID, "'"])).toString('base64url'),
      'A'.repeat(400),
      '-',
      '____',
    ]) {
      for (const path of ['/v1/tokens', '/v1/users', '/v1/projects', '/v1/audit']) {
        const response = await ask<Problem>(`${apiUrl}${path}?cursor=${cursor}`, 'GET', { token: all.secret });
        expectProblem(response, `${path}?cursor=${cursor.slice(0, 20)}`);
        expect(response.body.errors?.map(({ field }) => field)).toEqual(['cursor']);
      }
    }
  });
});

describe('paths', () => {
  it.each(withId)('%s refuses ids that are none', async (_name, endpoint) => {
    for (const id of [
      'x',
      '1',
      '0',
      '%00',
      '..%2f..',
      UNKNOWN_ID.toUpperCase(),
      `${UNKNOWN_ID}x`,
      'x'.repeat(3_000),
      '%zz',
      '%e0%80%80',
      "'%20or%201=1",
      '[object%20Object]',
    ]) {
      const path = endpoint.path.replace('{id}', id).replaceAll(/\{[^}]+\}/g, UNKNOWN_ID);
      const response = await askRaw(
        apiUrl,
        path,
        ['Authorization', `Bearer ${all.secret}`, 'Content-Type', 'application/json'],
        endpoint.method,
      );
      expect({
        path: path.slice(0, 80),
        fine: response.status >= 400 && response.status < 500,
        status: response.status,
      }).toMatchObject({ fine: true });
    }
  });

  it('reject ambiguous paths at the gateway', async () => {
    const token = ['Authorization', `Bearer ${all.secret}`];
    for (const path of [
      `/demo/projects/${project.id}/../${UNKNOWN_ID}/documents`,
      `/demo/projects/${project.id}/%2e%2e/${UNKNOWN_ID}/documents`,
      `/demo/projects/${project.id}/./documents`,
      `/demo//projects/${project.id}/documents`,
      `/demo/projects/${project.id}%2fdocuments`,
      `/demo/projects/${project.id}%5cdocuments`,
      `/demo/projects\\${project.id}/documents`,
      `/demo/projects/${project.id}/documents%00`,
      `/demo/projects/${project.id}/documents/%zz`,
      '/../etc/passwd',
      '/v1/../v1/tokens',
    ]) {
      const response = await askRaw(url, path, token);
      expect({ path, status: response.status, type: response.headers['content-type']?.split(';')[0] }).toEqual({
        path,
        status: 400,
        type: 'application/problem+json',
      });
    }
  });

  it('return 404 or 405 with problem details for unknown paths and methods', async () => {
    for (const [method, path, status] of [
      ['GET', '/v1/nothing', 404],
      ['GET', '/nothing/at/all.php', 404],
      ['PUT', '/v1/tokens', 405],
      ['DELETE', '/v1/session/x', 404],
      ['PATCH', '/v1/audit', 405],
    ] as const) {
      const response = await ask<Problem>(url + path, method, { token: all.secret });
      expectProblem(response, `${method} ${path}`);
      expect([404, status]).toContain(response.status);
    }
  });
});

describe('headers', () => {
  it('refuse malformed and doubled credentials', async () => {
    for (const value of [
      'Bearer',
      'Bearer ',
      `Bearer ${all.secret} x`,
      `Bearer ${'x'.repeat(5_000)}`,
      'Bearer \u00ff',
      `Bearer ${all.secret},${all.secret}`,
      `bearer\t${all.secret}`,
      ` ${all.secret}`,
    ]) {
      for (const base of [url, apiUrl]) {
        const response = await askRaw(base, '/v1/tokens', ['Authorization', value]);
        expect({
          value: value.slice(0, 30),
          fine: response.status >= 400 && response.status < 500,
          status: response.status,
        }).toMatchObject({ fine: true });
      }
    }
    for (const target of ['/v1/tokens', `/demo/projects/${project.id}/documents`]) {
      const doubled = await askRaw(url, target, [
        'Authorization',
        `Bearer ${all.secret}`,
        'Authorization',
        `Bearer ${all.secret}`,
      ]);
      expect({ target, status: doubled.status }).toEqual({ target, status: 400 });
    }
  });

  it('refuse Prefer and Idempotency-Key that mean nothing, cookies that are none, and too much of everything', async () => {
    const revoke = `/v1/tokens/${UNKNOWN_ID}/revoke`;
    for (const headers of [
      ['Prefer', 'wait=abc'],
      ['Prefer', 'wait=-1'],
      ['Prefer', `wait=${'9'.repeat(400)}`],
      ['Idempotency-Key', 'x'.repeat(300)],
      ['Idempotency-Key', ''],
      ['Cookie', 'latchkey_session=%00;;;=;a'],
      ['X-Request-Id', 'x'.repeat(2_000)],
      ['If-Match', '*'],
      ['Content-Type', ''],
    ]) {
      const response = await askRaw(url, revoke, ['Authorization', `Bearer ${all.secret}`, ...headers], 'POST');
      expect({ headers, below500: response.status < 500 }).toEqual({ headers, below500: true });
    }
    const long = await askRaw(url, '/v1/tokens', [
      'Authorization',
      `Bearer ${all.secret}`,
      'X-Long',
      'x'.repeat(40_000),
    ]);
    expect(long.status).toBe(431);
  });

  it('refuse a state-changing request by cookie from a foreign page', async () => {
    const foreign: Record<string, string>[] = [
      { origin: 'https://evil.example' },
      { origin: 'null' },
      { origin: 'https://evil.example', 'sec-fetch-site': 'cross-site' },
    ];
    for (const headers of foreign) {
      const response = await ask<Problem>(`${url}/v1/projects`, 'POST', {
        json: { name: 'x' },
        headers: { cookie: admin.cookie, ...headers },
      });
      expect(response).toMatchObject({ status: 403, body: { code: 'cross_site' } });
    }
  });
});

describe('the connection', () => {
  /** Sends bytes as they are and reads what comes back until the other side closes or a second has passed. */
  function exchange(text: string): Promise<string> {
    const { hostname, port } = new URL(url);
    return new Promise((resolve, reject) => {
      let response = '';
      const socket = connect(Number(port), hostname, () => socket.write(text));
      const over = setTimeout(() => socket.destroy(), 1_000);
      socket.on('data', (piece) => {
        response += piece.toString('latin1');
      });
      socket.on('error', reject);
      socket.on('close', () => {
        clearTimeout(over);
        resolve(response);
      });
    });
  }
  const target = () =>
    `POST /demo/projects/${project.id}/documents HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${all.secret}\r\n`;

  it.each([
    ['two lengths', 'Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}'],
    [
      'a length and chunks',
      'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/tokens HTTP/1.1\r\nHost: x\r\n\r\n',
    ],
    ['an unknown transfer coding', 'Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n'],
    ['a negative length', 'Content-Length: -1\r\n\r\n'],
    ['a broken chunk size', 'Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n'],
    ['a space before the colon', 'Content-Length : 2\r\n\r\n{}'],
    ['a folded header', 'X-A: b\r\n c\r\nContent-Length: 2\r\n\r\n{}'],
  ])('is refused once, with 400, for %s', async (_name, rest) => {
    const response = await exchange(target() + rest);
    const statuses = [...response.matchAll(/HTTP\/1\.1 (\d{3})/g)].map(([, status]) => Number(status));
    expect(statuses.length).toBe(1);
    expect(statuses[0]).toBe(400);
  });
});
