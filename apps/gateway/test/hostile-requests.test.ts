import { raw, type Stack, stack } from './stack.js';

let s: Stack;
let secret: string;
beforeAll(async () => {
  s = await stack(
    (upstream) => `
routes:
  - { name: any, path: /any/*, upstream: "${upstream}", require: {} }
  - { name: docs, path: /docs/*, upstream: "${upstream}", public: true }
  - { name: through, path: /through/*, upstream: "${upstream}", forwardAuthorization: true, require: {} }
`,
    { TRUSTED_PROXIES: '198.51.100.7' },
  );
  ({ secret } = s.authority.issue());
});
afterAll(async () => s[Symbol.asyncDispose]());
beforeEach(() => {
  s.upstream.seen.length = 0;
  s.upstream.handler = (req, res) => {
    req.resume().on('end', () => res.end('ok'));
  };
});

const send = (bytes: string) => raw(s.gateway.port, bytes);
const head = (first: string, ...lines: string[]) =>
  `${[first, 'Host: gateway', `Authorization: Bearer ${secret}`, 'Connection: close', ...lines].join('\r\n')}\r\n\r\n`;

async function expectRefused(bytes: string, status = 400, code = 'invalid_request') {
  const response = await send(bytes);
  expect([response.status, response.headers['content-type']]).toEqual([status, 'application/problem+json']);
  expect(JSON.parse(response.body)).toMatchObject({ code, status, requestId: response.headers['x-request-id'] });
  expect(s.upstream.seen).toEqual([]);
}

describe('a request with ambiguous framing is refused', () => {
  it.each([
    ['two Content-Length', `${head('POST /any/x HTTP/1.1', 'Content-Length: 4', 'Content-Length: 5')}abcde`],
    ['two equal Content-Length', `${head('POST /any/x HTTP/1.1', 'Content-Length: 4', 'Content-Length: 4')}abcd`],
    ['a list in Content-Length', `${head('POST /any/x HTTP/1.1', 'Content-Length: 4, 4')}abcd`],
    ['Content-Length with a sign', `${head('POST /any/x HTTP/1.1', 'Content-Length: +4')}abcd`],
    ['Content-Length below zero', `${head('POST /any/x HTTP/1.1', 'Content-Length: -4')}abcd`],
    ['Content-Length in hexadecimal', `${head('POST /any/x HTTP/1.1', 'Content-Length: 0x4')}abcd`],
    ['Content-Length past 64 bits', `${head('POST /any/x HTTP/1.1', 'Content-Length: 99999999999999999999')}abcd`],
    ['CL.TE', `${head('POST /any/x HTTP/1.1', 'Content-Length: 4', 'Transfer-Encoding: chunked')}0\r\n\r\n`],
    ['TE.CL', `${head('POST /any/x HTTP/1.1', 'Transfer-Encoding: chunked', 'Content-Length: 4')}0\r\n\r\n`],
    [
      'two Transfer-Encoding',
      `${head('POST /any/x HTTP/1.1', 'Transfer-Encoding: chunked', 'Transfer-Encoding: chunked')}0\r\n\r\n`,
    ],
    ['TE chunked, identity', `${head('POST /any/x HTTP/1.1', 'Transfer-Encoding: chunked, identity')}0\r\n\r\n`],
    ['TE gzip, chunked', `${head('POST /any/x HTTP/1.1', 'Transfer-Encoding: gzip, chunked')}0\r\n\r\n`],
    ['TE identity', `${head('POST /any/x HTTP/1.1', 'Transfer-Encoding: identity')}abcd`],
    ['TE misspelt', `${head('POST /any/x HTTP/1.1', 'Transfer-Encoding: xchunked')}0\r\n\r\n`],
    ['TE with a vertical tab', `${head('POST /any/x HTTP/1.1', 'Transfer-Encoding: \x0bchunked')}0\r\n\r\n`],
    ['TE quoted', `${head('POST /any/x HTTP/1.1', 'Transfer-Encoding: "chunked"')}0\r\n\r\n`],
    ['a space before the colon', `${head('POST /any/x HTTP/1.1', 'Transfer-Encoding : chunked')}0\r\n\r\n`],
    ['a name with a space', head('GET /any/x HTTP/1.1', 'X Y: z')],
    ['an empty header name', head('GET /any/x HTTP/1.1', ': z')],
    ['a line without a colon', head('GET /any/x HTTP/1.1', 'nonsense')],
    ['obs-fold', head('GET /any/x HTTP/1.1', 'X-Long: one', ' two')],
    ['obs-fold with a tab', head('GET /any/x HTTP/1.1', 'X-Long: one', '\ttwo')],
    ['obs-fold at the first header', `GET /any/x HTTP/1.1\r\n Host: gateway\r\n\r\n`],
    ['NUL in a value', head('GET /any/x HTTP/1.1', 'X-Y: a\0b')],
    ['a bare CR in a value', head('GET /any/x HTTP/1.1', 'X-Y: a\rZ: b')],
    ['bare LF line ends', `GET /any/x HTTP/1.1\nHost: gateway\n\n`],
    ['a bare LF after a header', head('GET /any/x HTTP/1.1', 'X-Y: a\nTransfer-Encoding: chunked')],
    ['a chunk size with a sign', `${head('POST /docs/x HTTP/1.1', 'Transfer-Encoding: chunked')}+1\r\na\r\n0\r\n\r\n`],
    ['a chunk size with 0x', `${head('POST /docs/x HTTP/1.1', 'Transfer-Encoding: chunked')}0x1\r\na\r\n0\r\n\r\n`],
    ['chunked in HTTP/1.0', `${head('POST /any/x HTTP/1.0', 'Transfer-Encoding: chunked')}0\r\n\r\n`],
    ['HTTP/0.9', 'GET /any/x\r\n\r\n'],
    ['HTTP/2 without agreement', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
    ['HTTP/1.2', head('GET /any/x HTTP/1.2')],
    ['nonsense', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03'],
    ['two Host', head('GET /any/x HTTP/1.1', 'Host: other')],
    ['no Host', `GET /docs/x HTTP/1.1\r\nConnection: close\r\n\r\n`],
    ['Host with a path', `GET /docs/x HTTP/1.1\r\nHost: a/b\r\nConnection: close\r\n\r\n`],
    ['an unknown expectation', head('GET /any/x HTTP/1.1', 'Expect: the-unexpected')],
  ])('%s', async (_, bytes) => {
    const response = await send(bytes);
    // A body found invalid while it is forwarded aborts the upstream's request and ends the connection.
    expect(response.status === 400 || (bytes.includes('/docs/x') && response.status === 0)).toBe(true);
    if (response.status === 400) expect(response.headers['content-type']).toBe('application/problem+json');
    expect(response.text.match(/HTTP\/1\.1 \d/g) ?? []).toHaveLength(response.status === 400 ? 1 : 0);
    expect(response.text).not.toContain('ok');
  });

  it('never parses the bytes after a refused head as a request', async () => {
    const smuggled = 'GET /docs/smuggled HTTP/1.1\r\nHost: gateway\r\n\r\n';
    await expectRefused(
      `${head('POST /any/x HTTP/1.1', 'Content-Length: 6', 'Transfer-Encoding: chunked')}0\r\n\r\n${smuggled}`,
    );
    await expectRefused(head('POST /any/x HTTP/1.1', 'Content-Length: 0', 'Content-Length: 44') + smuggled);
  });
});

describe('an ambiguous request target is refused', () => {
  it.each([
    ['dot segments', '/any/../docs/x'],
    ['a dot segment', '/any/./x'],
    ['a last dot segment', '/any/x/..'],
    ['encoded dots', '/any/%2e%2e/docs/x'],
    ['half encoded dots', '/any/.%2E/docs/x'],
    ['dot segment with parameters', '/any/..;/docs/x'],
    ['dot segment with parameters and a name', '/any/..;a=b/docs/x'],
    ['a backslash', '/any\\..\\docs/x'],
    ['an encoded backslash', '/any/%5c../x'],
    ['an encoded slash', '/any/a%2fb'],
    ['an encoded slash in capitals', '/any/a%2Fb'],
    ['an empty segment', '/any//x'],
    ['a leading empty segment', '//any/x'],
    ['a last empty segment', '/any/x//'],
    ['a segment of parameters alone', '/any/;a/x'],
    ['an encoded NUL', '/any/x%00'],
    ['a broken escape', '/any/%zz'],
    ['a cut escape', '/any/%2'],
    ['a fragment', '/any/x#y'],
    ['absolute form of another scheme', 'ftp://gateway/any/x'],
    ['absolute form without a host', 'http:///any/x'],
    ['absolute form with user information', 'http://a@gateway/any/x'],
    ['absolute form with a dot segment', 'http://gateway/any/../docs/x'],
    ['asterisk form', '*'],
    ['no slash', 'any/x'],
    ['non-ASCII letters', '/any/\u00e4'],
    ['a token in the query', '/any/x?access_token=abc'],
    ['a token in the query, encoded', '/any/x?a=1&access%5ftoken=abc'],
    ['a token in the query, all encoded', '/any/x?%61ccess_token=abc'],
    ['a token in the query without a value', '/any/x?access_token'],
    ['a token in the query after a semicolon', '/any/x?a;access_token=abc'],
  ])('%s', (_, target) => expectRefused(head(`GET ${target} HTTP/1.1`)));

  it.each([8_200, 17_000])('a target of %d characters is refused as too long', (length) =>
    expectRefused(head(`GET /any/${'x'.repeat(length)} HTTP/1.1`), 414, 'uri_too_long'),
  );

  it('a token in the query is refused at every endpoint', async () => {
    for (const path of ['/docs/x', '/v1/tokens', '/oauth2/introspect', '/mcp', '/', '/gateway/whoami', '/healthz'])
      await expectRefused(head(`GET ${path}?access_token=x HTTP/1.1`));
    expect(s.api.seen).toEqual([]);
  });

  it('unusual but unambiguous targets are forwarded unchanged', async () => {
    const targets = [
      '/any/a;v=1/b',
      '/any/.well-known/x',
      '/any/a...b',
      '/any/%20%C3%A4%3F',
      "/any/!$&'()*+,=:@",
      '/any/x/',
      '/any/x?a=//../%2f&b=%00',
      '/any/~x%25',
      '/any/...',
    ];
    for (const target of targets) expect((await send(head(`GET ${target} HTTP/1.1`))).status).toBe(200);
    expect(s.upstream.seen.map(({ url }) => url)).toEqual(targets);
  });

  it('encoded letters are matched and forwarded decoded', async () => {
    expect((await send(head('GET /%61ny/%78%2Dy%7e HTTP/1.1'))).status).toBe(200);
    expect(s.upstream.seen[0]!.url).toBe('/any/x-y~');
  });
});

describe('limits', () => {
  it('headers of more than 16 KiB are 431', () =>
    expectRefused(head('GET /any/x HTTP/1.1', `X-Big: ${'x'.repeat(17_000)}`), 431, 'header_too_large'));
  it('more than 200 headers are 431, so that a second Authorization after them cannot be missed', async () => {
    const many = Array.from({ length: 230 }, (_, i) => `X-${i}: y`);
    await expectRefused(head('GET /any/x HTTP/1.1', ...many), 431, 'header_too_large');
  });
});

describe('credentials', () => {
  it('reach the upstream only where the route forwards them', async () => {
    await send(head('GET /any/x HTTP/1.1'));
    expect(s.upstream.lastHeader('authorization')).toBeUndefined();
    await send(head('GET /through/x HTTP/1.1'));
    expect(s.upstream.lastHeader('authorization')).toBe(`Bearer ${secret}`);
  });
});

it('an error of whoami has the request id of its response', async () => {
  const { status, headers, body } = await send('GET /gateway/whoami HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n');
  expect([status, JSON.parse(body).requestId]).toEqual([401, headers['x-request-id']]);
});

describe('methods', () => {
  it('CONNECT and TRACE are refused', async () => {
    await expectRefused('CONNECT gateway:80 HTTP/1.1\r\nHost: gateway\r\n\r\n', 405, 'method_not_allowed');
    await expectRefused(head('TRACE /any/x HTTP/1.1'), 405, 'method_not_allowed');
    await expectRefused(head('TRACE /docs/x HTTP/1.1'), 405, 'method_not_allowed');
  });

  it.each(['CONNECT gateway:80', 'TRACE /any/x', 'POST /', 'POST /gateway/whoami', 'FOO /gateway/whoami'])(
    '405 names the methods that are allowed: %s',
    async (line) => {
      const { status, headers } = await send(head(`${line} HTTP/1.1`));
      expect([status, headers['allow']]).toEqual([405, expect.stringMatching(/^GET, HEAD/)]);
    },
  );

  it.each(['POST /healthz', 'CONNECT /forward-auth', 'TRACE /metrics'])(
    'of the ops port are GET and HEAD: %s',
    async (line) => {
      const { status, headers } = await raw(s.gateway.opsPort, head(`${line} HTTP/1.1`));
      expect([status, headers['allow']]).toEqual([405, 'GET, HEAD']);
    },
  );

  it('behind CONNECT nothing is read, at either port', async () => {
    for (const port of [s.gateway.port, s.gateway.opsPort]) {
      const { status, text } = await raw(
        port,
        'CONNECT /healthz HTTP/1.1\r\nHost: g\r\n\r\nGET /healthz HTTP/1.1\r\nHost: g\r\n\r\n',
      );
      expect([status, text.match(/HTTP\/1\.1 /g)]).toEqual([405, ['HTTP/1.1 ']]);
    }
  });

  it('in other spellings are not those that the routes file has rules for', async () => {
    for (const method of ['get', 'Get', 'post', 'dELETE']) await expectRefused(head(`${method} /any/x HTTP/1.1`));
  });
});

describe('headers from outside', () => {
  const names = () =>
    s.upstream.seen
      .at(-1)!
      .headers.filter((_, i) => i % 2 === 0)
      .map((name) => name.toLowerCase());

  it('cannot set the identity headers in any spelling', async () => {
    const spellings = [
      'X-Latchkey-Owner',
      'x-latchkey-owner',
      'X_Latchkey_Owner',
      'x_latchkey-owner',
      'X-LATCHKEY-OWNER',
      'X.Latchkey.Owner',
      'x-latchkey-token_id',
      'X-Latchkey-Anything',
      'X-Latchkey',
      'x~latchkey~owner',
      'X-Latchkey-Door',
      "x'latchkey'scopes",
    ];
    const response = await send(head('GET /docs/x HTTP/1.1', ...spellings.map((name) => `${name}: user:admin`)));
    expect(response.status).toBe(200);
    expect(s.upstream.seen.at(-1)!.headers.join()).not.toContain('user:admin');
    expect(names().filter((name) => name.includes('latchkey'))).toEqual(['x-latchkey-passed-by']);
    await send(
      head('GET /any/x HTTP/1.1', ...spellings.map((name) => `${name}: user:admin`), 'Connection: x-latchkey-owner'),
    );
    expect(s.upstream.seen.at(-1)!.headers.join()).not.toContain('user:admin');
    expect(names().filter((name) => name.includes('latchkey'))).toEqual([
      'x-latchkey-passed-by',
      'x-latchkey-token-id',
      'x-latchkey-owner',
      'x-latchkey-scopes',
    ]);
  });

  it('from an untrusted peer cannot set address, host, scheme or request id', async () => {
    const spoofed = [
      'X-Forwarded-For: 10.9.9.9',
      'x_forwarded_for: 10.9.9.9',
      'X-Forwarded-Proto: gopher',
      'X-Forwarded-Host: evil',
      'X-Forwarded-Anything: 10.9.9.9',
      'Forwarded: for=10.9.9.9',
      'X-Real-IP: 10.9.9.9',
      'X-Request-Id: 10.9.9.9',
      'X_Request_Id: 10.9.9.9',
    ];
    await send(head('GET /any/x HTTP/1.1', ...spoofed));
    expect(s.upstream.seen.at(-1)!.headers.join()).not.toMatch(/10\.9\.9\.9|gopher|evil/);
    expect(s.upstream.lastHeader('x-forwarded-for')).toBe('127.0.0.1');
    expect(s.upstream.lastHeader('x-forwarded-proto')).toBe('http');
    expect(s.upstream.lastHeader('x-forwarded-host')).toBe('gateway');
  });

  it('cannot make the upstream use another path or method than the one checked', async () => {
    await send(
      head(
        'GET /any/x HTTP/1.1',
        'X-Original-URL: /admin',
        'X-Rewrite-URL: /admin',
        'X-HTTP-Method-Override: DELETE',
        'X_HTTP_Method_Override: DELETE',
        'X-Method-Override: DELETE',
      ),
    );
    expect(s.upstream.seen.at(-1)!.headers.join()).not.toMatch(/admin|DELETE/);
  });

  it('that are hop-by-hop are dropped, also those listed in Connection', async () => {
    await send(
      'GET /docs/x HTTP/1.1\r\nHost: g\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nX-Kept: 1\r\nKeep-Alive: timeout=9\r\nProxy-Authorization: Basic x\r\nTE: trailers\r\nTrailer: X-T\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n',
    );
    expect(names()).toContain('x-kept');
    for (const name of ['x-hop', 'keep-alive', 'proxy-authorization', 'te', 'trailer', 'upgrade', 'http2-settings'])
      expect(names()).not.toContain(name);
  });

  it('pass no session cookie to the upstream, and other cookies unchanged', async () => {
    await send(
      head(
        'GET /any/x HTTP/1.1',
        'Cookie: a=1; latchkey_session=s3cret; b="2; c"',
        'Cookie: __Host-latchkey_session=s3cret; d=4',
      ),
    );
    expect(s.upstream.lastHeader('cookie')).toBe('a=1; b="2; c"; d=4');
    await send(head('GET /any/x HTTP/1.1', 'Cookie: LATCHKEY_SESSION=s3cret;latchkey_session =s3cret'));
    expect(s.upstream.lastHeader('cookie')).toBeUndefined();
  });

  it('of an upstream cannot set the session cookie or affect the console', async () => {
    s.upstream.handler = (_req, res) =>
      res
        .writeHead(200, {
          'set-cookie': [
            'ok=1',
            'latchkey_session=x; Path=/',
            '__Host-latchkey_session=x; Secure; Path=/',
            '=latchkey_session=x',
            ' __HOST-Latchkey_session=x',
          ],
          'clear-site-data': '"*"',
          'service-worker-allowed': '/',
          'alt-svc': 'h2="evil:443"',
          'content-security-policy': "default-src 'self'",
          connection: 'X-Hop',
          'x-hop': '1',
          'x-kept': '1',
        })
        .end('ok');
    const response = await send(head('GET /any/x HTTP/1.1'));
    expect(response.text.match(/set-cookie: .*/gi)).toEqual(['set-cookie: ok=1']);
    expect(response.text).not.toMatch(/clear-site-data|service-worker-allowed|alt-svc|x-hop/i);
    expect(response.headers['x-kept']).toBe('1');
    expect(response.text.match(/content-security-policy: .*/gi)).toEqual([
      "content-security-policy: default-src 'self'",
      'content-security-policy: sandbox',
    ]);
  });
});
