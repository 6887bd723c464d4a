import { waitFor } from '@latchkey/testing';
import { raw, type Stack, stack, TestUpstream } from './stack.js';

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
  afterAll(() => s[Symbol.asyncDispose]());

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
  const get = (s: Stack, path: string) =>
    raw(s.gateway.port, `GET ${path} HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n`);

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
    expect(s.gateway.reload()).toBe(true);
    await get(s, '/b/x');
    expect(ports[1]).toBe(ports[0]);

    const waiting = get(s, '/a/wait');
    await waitFor(() => ports.length === 3);
    s.writeRoutes(routes(other.url, 'a'));
    expect(s.gateway.reload()).toBe(true);
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
