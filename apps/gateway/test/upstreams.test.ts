import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createServer, getCACertificates, setDefaultCACertificates, type TLSSocket, type TlsOptions } from 'node:tls';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { selfSigned, waitFor } from '@latchkey/testing';
import { parseRoutes, RoutesFileError } from '../src/routes/index.js';
import { raw, type Stack, stack, TestUpstream } from './stack.js';

const get = (s: Stack, at: string) => raw(s.gateway.port, `GET ${at} HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n`);

describe('the Host field of a request', () => {
  let s: Stack;
  beforeAll(async () => {
    s = await stack(
      (upstream) => `
routes:
  - { name: kept, path: /kept/*, upstream: "${upstream}", public: true, preserveHost: true }
  - { name: own, path: /own/*, upstream: "${upstream}", public: true }
`,
    );
  });
  afterAll(async () => s[Symbol.asyncDispose]());

  const hostsOf = async (request: string) => {
    await raw(s.gateway.port, request);
    return [s.upstream.lastHeader('host'), s.upstream.lastHeader('x-forwarded-host')];
  };
  const rest = 'Connection: close\r\n\r\n';

  it("is the caller's with preserveHost, else the upstream's own; X-Forwarded-Host is the caller's with both", async () => {
    const own = `127.0.0.1:${s.upstream.port}`;
    const host = 'Host: App.example.org:8443\r\n';
    expect(await hostsOf(`GET /kept/x HTTP/1.1\r\n${host}${rest}`)).toEqual(Array(2).fill('App.example.org:8443'));
    expect(await hostsOf(`GET /own/x HTTP/1.1\r\n${host}${rest}`)).toEqual([own, 'App.example.org:8443']);
  });

  it('is that of an absolute target, and the own one of the upstream when the caller sends none', async () => {
    const absolute = 'GET http://app.example.org/kept/x HTTP/1.1\r\nHost: other.example.org\r\n';
    expect(await hostsOf(`${absolute}${rest}`)).toEqual(Array(2).fill('app.example.org'));
    expect(await hostsOf('GET /kept/x HTTP/1.0\r\n\r\n')).toEqual([`127.0.0.1:${s.upstream.port}`, undefined]);
  });

  it('is the caller’s in the handshake of a WebSocket too', async () => {
    const upgraded = new Promise<string | undefined>((resolve) => {
      s.upstream.server.once('upgrade', (request, socket) => {
        resolve(request.headers.host);
        socket.destroy();
      });
    });
    const handshake = 'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13';
    void raw(s.gateway.port, `GET /kept/ws HTTP/1.1\r\nHost: app.example.org\r\n${handshake}\r\n\r\n`).catch(
      () => null,
    );
    expect(await upgraded).toBe('app.example.org');
  });
});

describe('connections to an upstream', () => {
  it('are shared by routes with equal settings, and not kept by a route with keepAliveMs: 0', async () => {
    await using s = await stack(
      (upstream) => `
routes:
  - { name: a, path: /a/*, upstream: "${upstream}", public: true }
  - { name: b, path: /b/*, upstream: "${upstream}", public: true }
  - { name: none, path: /none/*, upstream: "${upstream}", public: true, keepAliveMs: 0 }
`,
    );
    const ports: (number | undefined)[] = [];
    s.upstream.handler = (req, res) => {
      ports.push(req.socket.remotePort);
      res.end('ok');
    };
    for (const path of ['/a/x', '/b/x', '/none/x', '/none/x', '/a/x']) await get(s, path);
    const [a, b, none, again, last] = ports;
    expect([b, last]).toEqual([a, a]);
    expect(new Set([a, none, again]).size).toBe(3);
  });

  it('remain over a reload that keeps their settings; those of an upstream that is gone end with their request', async () => {
    await using s = await stack((upstream) => routes(upstream, 'a'));
    await using other = new (class extends TestUpstream {
      [Symbol.asyncDispose] = () => this.close();
    })();
    await other.listen();
    let respond = () => undefined as unknown;
    const ports: (number | undefined)[] = [];
    s.upstream.handler = (req, res) => {
      ports.push(req.socket.remotePort);
      if (req.url === '/a/wait') respond = () => res.end('late');
      else res.end('ok');
    };
    await get(s, '/a/x');
    s.writeRoutes(routes(s.upstream.url, 'a', 'b'));
    expect(await s.gateway.reload()).toHaveProperty('hash');
    await get(s, '/b/x');
    expect(ports[1]).toBe(ports[0]);

    const waiting = get(s, '/a/wait');
    await waitFor(() => ports.length === 3);
    s.writeRoutes(routes(other.url, 'a'));
    expect(await s.gateway.reload()).toHaveProperty('hash');
    await get(s, '/a/x');
    expect(other.seen).toHaveLength(1);
    respond();
    expect((await waiting).body).toBe('late');
    await waitFor(() => s.upstream.sockets.size === 0);
  });

  const routes = (url: string, ...names: string[]) =>
    `routes:\n${names.map((name) => `  - { name: ${name}, path: /${name}/*, upstream: "${url}", public: true }\n`).join('')}`;
});

describe('an encoded slash', () => {
  it('reaches the upstream byte for byte where its route allows it, and passes forward-auth there', async () => {
    await using s = await stack(
      (upstream) => `
routes:
  - { name: files, path: /files/*, upstream: "${upstream}", require: {}, allowEncodedSlashes: true }
  - { name: admin, path: /files/admin/*, upstream: "${upstream}", require: { scopes: { "*": ["a:admin"] } } }
`,
    );
    const authorization = `Authorization: Bearer ${s.authority.issue().secret}\r\nConnection: close\r\n\r\n`;
    const statusOf = async (path: string) =>
      (await raw(s.gateway.port, `GET ${path} HTTP/1.1\r\nHost: g\r\n${authorization}`)).status;
    const authStatusOf = async (path: string) => {
      const forwarded = `X-Forwarded-Method: GET\r\nX-Forwarded-Uri: ${path}\r\n`;
      const bytes = `GET /forward-auth HTTP/1.1\r\nHost: g\r\n${forwarded}${authorization}`;
      return (await raw(s.gateway.opsPort, bytes)).status;
    };
    const cases: [string, number, number][] = [
      ['/files/group%2Fproject%5cx?a=%2F', 200, 204],
      ['/files/admin%2Fx', 400, 400],
      ['/files/admin/a%2Fx', 400, 400],
      ['/files/a%2F%2e%2e%2Fadmin', 400, 400],
      ['/v1/tokens%2Fx', 400, 400],
    ];
    for (const [path, ...statuses] of cases)
      expect([path, await statusOf(path), await authStatusOf(path)]).toEqual([path, ...statuses]);
    expect(s.upstream.seen.map(({ url }) => url)).toEqual(['/files/group%2Fproject%5cx?a=%2F']);
  });
});

describe('an upstream of https', () => {
  const [own, other, client, named] = [selfSigned(), selfSigned(), selfSigned(), selfSigned('up.example.org')];
  const trusted = getCACertificates('default');
  let dir: string;
  beforeAll(() => {
    dir = mkdtempSync(path.join(tmpdir(), 'latchkey-tls-'));
    const files = { own, other, client, named };
    for (const [name, { cert, key }] of Object.entries(files)) {
      writeFileSync(path.join(dir, `${name}.pem`), cert);
      writeFileSync(path.join(dir, `${name}.key`), key);
    }
  });
  afterAll(() => {
    setDefaultCACertificates(trusted);
    rmSync(dir, { recursive: true, force: true });
  });

  /** Responds to each request with the name that it was asked for. */
  async function tlsUpstream(options: TlsOptions): Promise<AsyncDisposable & { url: string }> {
    const sockets = new Set<Socket>();
    const server = createServer(options, (socket: TLSSocket) => {
      sockets.add(socket);
      socket.on('error', () => socket.destroy());
      const name = `${socket.servername || '-'}`;
      socket.on('data', () => socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${name.length}\r\n\r\n${name}`));
    });
    server.on('tlsClientError', () => undefined);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return {
      url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
      [Symbol.asyncDispose]: async () => {
        for (const socket of sockets) socket.destroy();
        await new Promise((resolve) => server.close(resolve));
      },
    };
  }
  const route = (name: string, url: string, tls = '') =>
    `  - { name: ${name}, path: /${name}/*, upstream: "${url}", public: true${tls && `, tls: { ${tls} }`} }\n`;
  const file = (name: string) => JSON.stringify(path.join(dir, name));

  it("is trusted by the route's authorities in place of the system's", async () => {
    await using upstream = await tlsUpstream(own);
    const routes = [
      route('own', upstream.url, `ca: ${file('own.pem')}`),
      route('other', upstream.url, `ca: ${file('other.pem')}`),
      route('system', upstream.url),
    ];
    await using s = await stack(() => `routes:\n${routes.join('')}`);
    const statuses = async () =>
      [await get(s, '/own/x'), await get(s, '/other/x'), await get(s, '/system/x')].map(({ status }) => status);
    setDefaultCACertificates([]);
    expect(await statuses()).toEqual([200, 502, 502]);
    setDefaultCACertificates([own.cert]);
    expect(await statuses()).toEqual([200, 502, 200]);
  });

  it('is shown the certificate of the route', async () => {
    await using upstream = await tlsUpstream({ ...own, ca: client.cert, requestCert: true, rejectUnauthorized: true });
    const ca = `ca: ${file('own.pem')}`;
    const routes = [
      route('with', upstream.url, `${ca}, certificate: ${file('client.pem')}, key: ${file('client.key')}`),
      route('wrong', upstream.url, `${ca}, certificate: ${file('other.pem')}, key: ${file('other.key')}`),
      route('without', upstream.url, ca),
    ];
    await using s = await stack(() => `routes:\n${routes.join('')}`);
    expect((await get(s, '/with/x')).status).toBe(200);
    expect((await get(s, '/wrong/x')).status).toBe(502);
    expect((await get(s, '/without/x')).status).toBe(502);
  });

  it('is asked for serverName, and must prove to be it', async () => {
    await using upstream = await tlsUpstream(named);
    const ca = `ca: ${file('named.pem')}`;
    const routes = [
      route('named', upstream.url, `${ca}, serverName: up.example.org`),
      route('another', upstream.url, `${ca}, serverName: another.example.org`),
      route('address', upstream.url, ca),
    ];
    await using s = await stack(() => `routes:\n${routes.join('')}`);
    expect(await get(s, '/named/x')).toMatchObject({ status: 200, body: 'up.example.org' });
    expect((await get(s, '/another/x')).status).toBe(502);
    expect((await get(s, '/address/x')).status).toBe(502);
  });

  it('gets the files of a reload; one that is wrong changes nothing', async () => {
    await using upstream = await tlsUpstream(own);
    writeFileSync(path.join(dir, 'changing.pem'), own.cert);
    await using s = await stack(() => `routes:\n${route('a', upstream.url, `ca: ${file('changing.pem')}`)}`);
    expect((await get(s, '/a/x')).status).toBe(200);
    writeFileSync(path.join(dir, 'changing.pem'), 'no certificate');
    expect(await s.gateway.reload()).toHaveProperty('isInvalid', true);
    expect((await get(s, '/a/x')).status).toBe(200);
    // A kept connection was made with the authority before.
    writeFileSync(path.join(dir, 'changing.pem'), other.cert);
    expect(await s.gateway.reload()).toHaveProperty('hash');
    expect((await get(s, '/a/x')).status).toBe(502);
    writeFileSync(path.join(dir, 'changing.pem'), own.cert);
    expect(await s.gateway.reload()).toHaveProperty('hash');
    expect((await get(s, '/a/x')).status).toBe(200);
  });

  it('has files beside the routes file', () => {
    const text = `routes:\n${route('a', 'https://h', 'ca: own.pem')}`;
    expect(parseRoutes(text, path.join(dir, 'routes.yaml')).routes).toHaveLength(1);
  });

  it.each([
    [
      'is missing',
      'ca: none.pem',
      /^\S+:2: routes\[0\]\.tls\.ca: of the route "a": \/\S+\/none\.pem cannot be read \(ENOENT\)$/,
    ],
    ['is no certificate', 'ca: own.key', /tls\.ca: of the route "a": \/\S+\/own\.key has no certificate in PEM$/],
    ['has a broken certificate', 'ca: broken.pem', /tls\.ca: .*broken\.pem has a certificate that cannot be read \(/],
    ['is no key', 'certificate: own.pem, key: own.pem', /tls\.key: .*own\.pem has no private key in PEM/],
    [
      'is the key of another certificate',
      'certificate: own.pem, key: other.key',
      /tls\.key: of the route "a": \/\S+\/other\.key does not belong to the certificate own\.pem$/,
    ],
    ['is a key alone', 'key: own.key', /tls\.key: needs certificate/],
    ['is a certificate alone', 'certificate: own.pem', /tls\.certificate: needs key/],
    ['is none', '', /tls: set ca, certificate and key, or serverName/],
    ['is asked for by address', 'serverName: 127.0.0.1', /tls\.serverName: is not a host name/],
  ])('with a file that %s is refused by name of the route, the field and the file', (_, tls, problem) => {
    writeFileSync(path.join(dir, 'broken.pem'), own.cert.replace(/\n.{10}/, '\nAAAAAAAAAA'));
    const text = `routes:\n  - { name: a, path: /a/*, upstream: "https://h", public: true, tls: { ${tls} } }\n`;
    expect(problemsOf(text, path.join(dir, 'routes.yaml'))).toEqual([expect.stringMatching(problem)]);
  });

  it('is the only one that tls is for', () => {
    const [problem] = problemsOf(`routes:\n${route('a', 'http://h', 'serverName: x.example')}`, 'routes.yaml');
    expect(problem).toBe('routes.yaml:2: routes[0].tls: is for upstreams of https://');
  });
});

describe('an upstream with health checks', () => {
  type Answer = (res: ServerResponse) => void;
  const status =
    (code: number): Answer =>
    (res) =>
      res.writeHead(code, code === 302 ? { location: '/x' } : {}).end();

  async function checked(first: Answer): Promise<Stack & { other: TestUpstream; answer: { check: Answer } }> {
    const other = new TestUpstream();
    await other.listen();
    const answer = { check: first };
    other.handler = (req, res) => (req.url === '/health?x' ? answer.check(res) : res.end('other'));
    const check = 'healthCheck: { path: "/health?x", intervalMs: 1000, timeoutMs: 1000 }';
    const s = await stack(
      (upstream) =>
        `routes:\n  - { name: a, path: /a/*, upstreams: ["${upstream}/b", "${other.url}/b"], public: true, ${check} }\n`,
    );
    const close = async () => {
      await s[Symbol.asyncDispose]();
      await other.close();
    };
    return { ...s, other, answer, [Symbol.asyncDispose]: close };
  }
  const patient = { timeoutMs: 60_000 };
  const available = async (s: Stack, { url }: TestUpstream) => {
    const { text } = await raw(s.gateway.opsPort, 'GET /metrics HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n');
    const line = text.split('\n').find((one) => one.includes('upstream_available{') && one.includes(url));
    return line?.split(' ').at(-1);
  };
  const bodies = async (s: Stack) => [(await get(s, '/a/x')).body, (await get(s, '/a/x')).body].sort();

  it.each<[string, Answer]>([
    ['a status of 400 or more', status(404)],
    ['no HTTP', (res) => res.socket!.end('nonsense\r\n\r\n')],
    ['the end of the connection', (res) => res.socket!.destroy()],
    ['nothing', () => undefined],
  ])('gets no requests while it answers with %s, and gets them again once it is healthy', async (_, unhealthy) => {
    await using s = await checked(unhealthy);
    await waitFor(async () => (await available(s, s.other)) === '0', patient);
    expect(await bodies(s)).toEqual(['ok', 'ok']);
    s.answer.check = status(204);
    await waitFor(async () => (await available(s, s.other)) === '1', patient);
    expect(await bodies(s)).toEqual(['ok', 'other']);
  });

  it('is asked over connections of their own, with its own Host, and a redirection is healthy', async () => {
    await using s = await checked(status(302));
    await waitFor(() => s.other.seen.length >= 3, patient);
    await waitFor(async () => (await available(s, s.other)) === '1', patient);
    expect(s.other.seen[0]).toMatchObject({ method: 'GET', url: '/health?x' });
    expect(s.other.lastHeader('host')).toBe(`127.0.0.1:${s.other.port}`);
    await waitFor(() => s.other.sockets.size === 0, patient);
  });

  it('is asked no more when a reload drops it', async () => {
    await using s = await checked(status(200));
    await waitFor(() => s.other.seen.length >= 1, patient);
    s.writeRoutes(`routes:\n  - { name: a, path: /a/*, upstream: "${s.upstream.url}", public: true }\n`);
    expect(await s.gateway.reload()).toHaveProperty('hash');
    await waitFor(() => s.other.sockets.size === 0, patient);
    const { length } = s.other.seen;
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    expect(s.other.seen).toHaveLength(length);
    expect(await available(s, s.other)).toBeUndefined();
  });

  it.each([
    [
      'one upstream',
      'upstream: "http://h", healthCheck: { path: /x }',
      /healthCheck: is for upstreams: a single one gets/,
    ],
    ['no path', 'upstreams: ["http://h"], healthCheck: {}', /healthCheck\.path: /],
    [
      'a path with a space',
      'upstreams: ["http://h"], healthCheck: { path: "/x y" }',
      /healthCheck\.path: begins with "\/"/,
    ],
    [
      'a short interval',
      'upstreams: ["http://h"], healthCheck: { path: /x, intervalMs: 499 }',
      /healthCheck\.intervalMs: /,
    ],
    [
      'a timeout above the interval',
      'upstreams: ["http://h"], healthCheck: { path: /x, intervalMs: 1000, timeoutMs: 1001 }',
      /healthCheck\.timeoutMs: must not be longer than intervalMs$/,
    ],
  ])('is refused with %s', (_, fields, problem) => {
    const text = `routes:\n  - { name: a, path: /a/*, public: true, ${fields} }\n`;
    expect(problemsOf(text, 'r')).toEqual([expect.stringMatching(problem)]);
  });
});

function problemsOf(text: string, file: string): readonly string[] {
  try {
    parseRoutes(text, file);
  } catch (error) {
    if (error instanceof RoutesFileError) return error.problems;
    throw error;
  }
  return [];
}

describe('a route with several upstreams', () => {
  let s: Stack;
  let others: TestUpstream[];
  const all = () => [s.upstream, ...others];
  const namesOf = (bodies: string[]) => bodies.sort().join(' ');
  const post = (at: string, body: string) =>
    raw(
      s.gateway.port,
      `POST ${at} HTTP/1.1\r\nHost: g\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`,
    );
  const metric = async (name: string, { url }: TestUpstream) => {
    const { text } = await raw(s.gateway.opsPort, 'GET /metrics HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n');
    const start = `latchkey_gateway_upstream_${name}{`;
    const line = text.split('\n').find((one) => one.startsWith(start) && one.includes(`upstream="${url}"`));
    return Number(line?.split(' ').at(-1) ?? Number.NaN);
  };
  /** How many requests were sent to each. */
  const counts = () => all().map(({ seen }) => seen.length);

  beforeEach(async () => {
    others = [new TestUpstream(), new TestUpstream()];
    await Promise.all(others.map((upstream) => upstream.listen()));
    s = await stack((upstream) => {
      const urls = [upstream, ...others.map(({ url }) => url)].map((url) => `"${url}/base"`);
      return `routes:\n  - { name: a, path: /a/*, upstreams: [${urls.join(', ')}], public: true, timeoutMs: 5000 }\n`;
    });
    all().forEach((upstream, i) => {
      upstream.handler = (req, res) => {
        let body = '';
        req.on('data', (chunk) => {
          body += chunk;
        });
        req.on('end', () => res.end(`${i} ${body.length}`));
      };
    });
  });
  afterEach(async () => {
    await Promise.all(others.map((upstream) => upstream.close()));
    await s[Symbol.asyncDispose]();
  });

  it('sends as many requests to each, with its own Host and the same path', async () => {
    const bodies: string[] = [];
    for (let i = 0; i < 6; i++) bodies.push((await get(s, '/a/x')).body);
    expect(namesOf(bodies)).toBe('0 0 0 0 1 0 1 0 2 0 2 0');
    for (const upstream of all()) {
      expect(upstream.seen[0]!.url).toBe('/base/a/x');
      expect(upstream.lastHeader('host')).toBe(`127.0.0.1:${upstream.port}`);
    }
    expect(await metric('available', s.upstream)).toBe(1);
  });

  it('loses no request of any method when one upstream refuses connections, which is ejected and returns', async () => {
    const gone = s.upstream;
    const { port } = gone;
    await gone.close();
    for (let i = 0; i < 12; i++) {
      const response = i % 2 ? await get(s, '/a/x') : await post('/a/x', 'body');
      expect([response.status, response.body]).toEqual([200, expect.stringMatching(i % 2 ? /^[12] 0$/ : /^[12] 4$/)]);
    }
    expect(await metric('ejections_total', gone)).toBeGreaterThanOrEqual(1);
    expect(await metric('failures_total', gone)).toBeGreaterThanOrEqual(3);
    expect(await metric('available', others[0]!)).toBe(1);
    // On a slow machine it can have returned meanwhile; the next failure ejects it for longer.
    const isEjected = async () => (await get(s, '/a/x')).status === 200 && (await metric('available', gone)) === 0;
    await waitFor(isEjected, { timeoutMs: 60_000 });
    await new Promise<void>((resolve) => gone.server.listen(port, '127.0.0.1', resolve));
    await waitFor(async () => (await metric('available', gone)) === 1, { timeoutMs: 60_000 });
    for (let i = 0; i < 3; i++) expect((await get(s, '/a/x')).status).toBe(200);
    expect(gone.seen).toHaveLength(1);
  });

  it('loses no upload either, however much has come of it', async () => {
    await Promise.all([s.upstream.close(), others[0]!.close()]);
    const body = 'x'.repeat(3_000_000);
    for (let i = 0; i < 3; i++) expect(await post('/a/x', body)).toMatchObject({ status: 200, body: '2 3000000' });
  });

  it('uses all of them rather than none', async () => {
    const ports = all().map(({ port }) => port);
    await Promise.all(all().map((upstream) => upstream.close()));
    for (let i = 0; i < 3; i++) expect((await get(s, '/a/x')).status).toBe(502);
    for (const upstream of all()) expect(await metric('ejections_total', upstream)).toBeGreaterThanOrEqual(1);
    await new Promise<void>((resolve) => s.upstream.server.listen(ports[0], '127.0.0.1', resolve));
    for (let i = 0; i < 3; i++) expect(await get(s, '/a/x')).toMatchObject({ status: 200, body: '0 0' });
  });

  it('remembers over a reload what has failed, also for other routes to the same', async () => {
    const urls = all().map(({ url }) => `"${url}/base"`);
    await s.upstream.close();
    for (let i = 0; i < 9; i++) await get(s, '/a/x');
    const known = async () => [await metric('ejections_total', s.upstream), await metric('failures_total', s.upstream)];
    const before = await known();
    expect(before[0]).toBeGreaterThanOrEqual(1);
    const route = (name: string) =>
      `  - { name: ${name}, path: /${name}/*, upstreams: [${urls.join(', ')}], public: true, timeoutMs: 4000 }\n`;
    s.writeRoutes(`routes:\n${route('a')}${route('b')}`);
    expect(await s.gateway.reload()).toHaveProperty('hash');
    expect(await known()).toEqual(before);
    for (let i = 0; i < 6; i++) expect((await get(s, i % 2 ? '/a/x' : '/b/x')).status).toBe(200);
  });

  it('repeats nothing that an upstream has received', async () => {
    for (const upstream of all()) upstream.handler = (req) => req.socket.destroy();
    expect((await post('/a/x', 'body')).status).toBe(502);
    expect(counts().reduce((sum, count) => sum + count)).toBe(1);
  });

  it('opens a WebSocket to another one when the first refuses connections', async () => {
    await Promise.all([s.upstream.close(), others[1]!.close()]);
    others[0]!.server.on('upgrade', (_request, socket) => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello');
    });
    const fields = 'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13';
    for (let i = 0; i < 3; i++) {
      const { status } = await raw(s.gateway.port, `GET /a/ws HTTP/1.1\r\nHost: g\r\n${fields}\r\n\r\n`, 'hello');
      expect(status).toBe(101);
    }
  });

  it.each([
    [
      'upstream too',
      'upstream: "http://a", upstreams: ["http://b"]',
      /upstreams: is in place of upstream: drop one of them$/,
    ],
    ['no upstream at all', '', /^r:2: routes\[0\]\.upstream: is missing: set upstream, or upstreams$/],
    ['none', 'upstreams: []', /upstreams: name at least one$/],
    ['one that is no address', 'upstreams: ["http://a", b]', /upstreams\[1\]: must be an http:\/\/ or https:/],
    ['one twice', 'upstreams: ["http://a", "http://A:80"]', /upstreams\[1\]: http:\/\/a is there twice$/],
    [
      'two schemes',
      'upstreams: ["http://a", "https://b"]',
      /upstreams\[1\]: must have the scheme and the path of the first/,
    ],
    [
      'two paths',
      'upstreams: ["http://a/x", "http://b"]',
      /upstreams\[1\]: must have the scheme and the path of the first/,
    ],
    ['too many', `upstreams: [${Array.from({ length: 33 }, (_, i) => `"http://h${i}"`)}]`, /upstreams: at most 32$/],
  ])('is refused with %s', (_, upstreams, problem) => {
    const text = `routes:\n  - { name: a, path: /a/*, public: true${upstreams && `, ${upstreams}`} }\n`;
    expect(problemsOf(text, 'r')).toEqual([expect.stringMatching(problem)]);
  });
});
