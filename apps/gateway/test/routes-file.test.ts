import { readFileSync } from 'node:fs';
import path from 'node:path';
import { newId } from '@latchkey/runtime';
import { readTarget } from '../src/http/index.js';
import { parseRoutes, RoutesFileError, type RouteTable } from '../src/routes/index.js';

const example = path.join(import.meta.dirname, '../../../infra/gateway.yaml');

function problemsOf(text: string, env: NodeJS.ProcessEnv = {}): readonly string[] {
  try {
    parseRoutes(text, 'routes.yaml', env);
  } catch (error) {
    if (error instanceof RoutesFileError) return error.problems;
    throw error;
  }
  return [];
}
const one = (...lines: string[]) =>
  [
    'routes:',
    '  - name: a',
    '    path: /a/*',
    '    upstream: http://127.0.0.1:1',
    ...lines.map((line) => `    ${line}`),
  ].join('\n');

const variable = (name: string) => `\${${name}}`;

describe('a routes file', () => {
  it('that is the example is valid, and its upstream comes from the environment', () => {
    const text = readFileSync(example, 'utf8');
    const origins = (env: NodeJS.ProcessEnv) =>
      new Set(parseRoutes(text, example, env).routes.flatMap(({ upstreams }) => upstreams.map(({ origin }) => origin)));
    expect(origins({})).toEqual(new Set(['http://127.0.0.1:4010']));
    expect(origins({ DEMO_UPSTREAM: 'http://demo:4010' })).toEqual(new Set(['http://demo:4010']));
  });

  it.each<[string, string, RegExp]>([
    [
      'an unknown setting',
      one('require: {}', 'colour: red'),
      /^routes\.yaml:6: routes\[0\]\.colour: is not a known setting$/,
    ],
    [
      'an unknown setting of require',
      one('require:', '  scope: { GET: [a:b] }'),
      /^routes\.yaml:6: routes\[0\]\.require\.scope: is not/,
    ],
    ['nothing required', one(), /^routes\.yaml:2: routes\[0\]: set require/],
    [
      'public and required',
      one('public: true', 'require: {}'),
      /^routes\.yaml:6: routes\[0\]\.require: a public route requires no token/,
    ],
    [
      'a scope misspelt',
      one('require: { scopes: { GET: [Read] } }'),
      /^routes\.yaml:5: routes\[0\]\.require\.scopes\.GET\[0\]: a scope looks like/,
    ],
    ['a method in lower case', one('require: { scopes: { get: [a:b] } }'), /:5: routes\[0\]\.require\.scopes\.get: /],
    ['HEAD', one('require: { scopes: { HEAD: [a:b] } }'), /HEAD counts as GET/],
    ['TRACE', one('require: { scopes: { TRACE: [a:b] } }'), /never forwarded/],
    [
      'an upstream that is not a URL',
      one('require: {}').replace('http://127.0.0.1:1', 'localhost'),
      /^routes\.yaml:4: routes\[0\]\.upstream: must be an http/,
    ],
    ['an upstream with a password', one('require: {}').replace('127', 'a:b@127'), /without user name/],
    ['an upstream with a query', one('require: {}').replace(':1', ':1/?x'), /without user name, query/],
    [
      'a path without a slash',
      one('require: {}').replace('/a/*', 'a'),
      /^routes\.yaml:3: routes\[0\]\.path: must begin with "\/"/,
    ],
    ['a path with an escape', one('require: {}').replace('/a/*', '/a%62'), /can have letters, digits/],
    ['a path with parameters', one('require: {}').replace('/a/*', '/a;b'), /can have letters, digits/],
    ['a star in the middle', one('require: {}').replace('/a/*', '/a/*/b'), /only as the last segment/],
    ['a star within a segment', one('require: {}').replace('/a/*', '/a*'), /can have letters, digits/],
    ['a dot segment', one('require: {}').replace('/a/*', '/a/../b'), /dot segment/],
    ['an empty segment', one('require: {}').replace('/a/*', '/a//b'), /empty segment/],
    ['a slash at the end', one('require: {}').replace('/a/*', '/a/'), /must not end in/],
    ['a capture twice', one('require: {}').replace('/a/*', '/a/{x}/{x}'), /captures \{x\} twice/],
    ["the gateway's own path", one('require: {}').replace('/a/*', '/v1/*'), /\/v1 is served by the gateway itself/],
    ["the console's path", one('require: {}').replace('/a/*', '/'), /is the path of the console/],
    ['a name of the gateway', one('require: {}').replace('name: a', 'name: forward-auth'), /the gateway itself uses/],
    [
      'a project that is not captured',
      one('require: { project: "{p}" }'),
      /^routes\.yaml:5: routes\[0\]\.require\.project: \{p\} is not captured/,
    ],
    [
      'a prefix of another path',
      one('require: {}', 'stripPrefix: /b'),
      /^routes\.yaml:6: routes\[0\]\.stripPrefix: is not a prefix/,
    ],
    [
      'a prefix that ends within a segment',
      one('require: {}', 'stripPrefix: /a').replace('/a/*', '/abc/*'),
      /is not a prefix/,
    ],
    ['a keep-alive that is too long', one('require: {}', 'keepAliveMs: 600001'), /:6: routes\[0\]\.keepAliveMs: /],
    ['no timeout', one('require: {}', 'timeoutMs: 0'), /^routes\.yaml:6: routes\[0\]\.timeoutMs: /],
    ['tools on another kind', one('require: {}', 'tools: { a: [a:b] }'), /only a route of kind mcp has tools/],
    ['MCP without tools', one('kind: mcp'), /names the scopes of its tools/],
    ['an origin with a path', one('require: {}', 'cors: { origins: ["https://a.example/x"] }'), /an origin is/],
    [
      'an alias bomb',
      `a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nroutes: [*c,*c,*c,*c,*c,*c,*c,*c,*c]`,
      /routes\.yaml:\d+: /,
    ],
    [
      'a name twice',
      `${one('require: {}')}\n  - { name: a, path: /b, upstream: "http://h", require: {} }`,
      /^routes\.yaml:6: routes\[1\]\.name: "a" is already the name of routes\[0\]$/,
    ],
    [
      'the same paths twice',
      `${one('require: {}').replace('/a/*', '/a/{x}')}\n  - name: b\n    path: /a/{y}\n    upstream: http://h\n    require: {}`,
      /^routes\.yaml:7: routes\[1\]\.path: matches the same requests as routes\[0\]$/,
    ],
    [
      'a setting twice',
      one('require: {}', 'public: false', 'public: true'),
      /^routes\.yaml:7: Map keys must be unique/,
    ],
    ['broken YAML', 'routes:\n  - name: "a', /^routes\.yaml:2: /],
    ['a tab', 'routes:\n\t- name: a', /^routes\.yaml:2: /],
    [
      'a variable that is not set',
      one('require: {}').replace('http://127.0.0.1:1', variable('NOWHERE')),
      /^routes\.yaml:4: \$\{NOWHERE\} is not set/,
    ],
    ['nothing', '', /^routes\.yaml:1: the file: /],
    ['a list', '- a', /^routes\.yaml:1: the file: /],
  ])('with %s is refused, with line and reason', (_, text, message) => {
    const problems = problemsOf(text);
    expect(problems.length).toBeGreaterThan(0);
    expect(problems.some((problem) => message.test(problem)) ? '' : problems.join('\n')).toBe('');
  });

  it('reports every problem at once', () => {
    expect(problemsOf(one('colour: red', 'timeoutMs: 0')).length).toBeGreaterThanOrEqual(2);
  });

  it('cannot be extended by the value of a variable', () => {
    const table = parseRoutes(one('require: {}').replace('name: a', `name: ${variable('NAME')}`), 'routes.yaml', {
      NAME: 'b',
    });
    expect(table.routes[0]!.name).toBe('b');
    const text = one('require: {}').replace('name: a', `name: ${variable('NAME')}`);
    expect(problemsOf(text, { NAME: 'b\n    public: true' })[0]).toMatch(/routes\[0\]\.name: /);
  });
});

describe('a path', () => {
  const table = (...paths: string[]): RouteTable =>
    parseRoutes(
      JSON.stringify({
        routes: paths.map((at, i) => ({ name: `r${i}`, path: at, upstream: 'http://h', require: {} })),
      }),
      'routes.yaml',
    );

  it('belongs to the route with the longest literal prefix, in any order of the file', () => {
    const paths = [
      '/*',
      '/demo/*',
      '/demo',
      '/demo/{x}',
      '/demo/{x}/files/*',
      '/demo/admin',
      '/demo/admin/*',
      '/{any}/x',
    ];
    for (const order of [paths, [...paths].reverse()]) {
      const of = (at: string) => {
        const route = table(...order).match(at);
        return route && order[Number(route.name.slice(1))];
      };
      expect(of('/demo')).toBe('/demo');
      expect(of('/demo/')).toBe('/demo');
      expect(of('/demo/a')).toBe('/demo/{x}');
      expect(of('/demo/a/b')).toBe('/demo/*');
      expect(of('/demo/a/files/b')).toBe('/demo/{x}/files/*');
      expect(of('/demo/a/files')).toBe('/demo/{x}/files/*');
      expect(of('/demo/admin')).toBe('/demo/admin');
      expect(of('/demo/admin/')).toBe('/demo/admin');
      expect(of('/demo/admin/x')).toBe('/demo/admin/*');
      expect(of('/demo/administrator')).toBe('/demo/{x}');
      expect(of('/other/x')).toBe('/{any}/x');
      expect(of('/other')).toBe('/*');
      expect(of('/')).toBe('/*');
    }
    expect(table('/demo/*').match('/demonstration')).toBeUndefined();
  });

  it('without an entry for its method is denied', () => {
    const [route] = parseRoutes(one('require: { scopes: { GET: [a:r] } }'), 'r').routes;
    expect(route!.requirement('HEAD', '/a/x')).toEqual({ scopes: ['a:r'], project: undefined });
    expect(route!.requirement('POST', '/a/x')).toBeNull();
    const [other] = parseRoutes(one('require: { scopes: { GET: [a:r], "*": [a:w] } }'), 'r').routes;
    expect(other!.requirement('POST', '/a/x')).toEqual({ scopes: ['a:w'], project: undefined });
    expect(other!.requirement('TRACE', '/a/x')).toBeNull();
  });

  it('is forwarded below the base path of the upstream, without the stripped prefix', () => {
    const routed = (spec: object, at: string) => {
      const [route] = parseRoutes(JSON.stringify({ routes: [{ name: 'a', require: {}, ...spec }] }), 'r').routes;
      expect(route!.matches(at)).toBe(true);
      return route!.upstreamPath(at);
    };
    expect(routed({ path: '/a/*', upstream: 'http://h' }, '/a/b')).toBe('/a/b');
    expect(routed({ path: '/a/*', upstream: 'http://h/base/', stripPrefix: '/a' }, '/a/b')).toBe('/base/b');
    expect(routed({ path: '/a/*', upstream: 'http://h', stripPrefix: '/a' }, '/a')).toBe('/');
    expect(routed({ path: '/tools/mcp', upstream: 'http://h/mcp' }, '/tools/mcp')).toBe('/mcp');
    expect(routed({ path: '/tools/mcp', upstream: 'http://h/mcp' }, '/tools/mcp/')).toBe('/mcp');
  });
});

describe('an encoded slash', () => {
  const table = parseRoutes(
    JSON.stringify({
      routes: [
        { name: 'files', path: '/files/*', upstream: 'http://h', require: {}, allowEncodedSlashes: true },
        { name: 'admin', path: '/files/admin/*', upstream: 'http://h', require: { scopes: { GET: ['a:admin'] } } },
        { name: 'also', path: '/files/also/*', upstream: 'http://h', require: {}, allowEncodedSlashes: true },
        { name: 'strict', path: '/strict/*', upstream: 'http://h', require: {} },
        {
          name: 'project',
          path: '/p/{project}/*',
          upstream: 'http://h',
          require: { project: '{project}' },
          allowEncodedSlashes: true,
        },
        { name: 'all', path: '/*', upstream: 'http://h', require: {}, allowEncodedSlashes: true },
      ],
    }),
    'routes.yaml',
  );
  const forwarded = (raw: string) => {
    const target = readTarget(raw, table.allowEncodedSlashes);
    if ('detail' in target) return target.detail;
    if (target.readings && !table.acceptsEncodedSlashes(target)) return 'not accepted';
    return table.match(target.match)!.upstreamPath(target.path);
  };

  it.each([
    '/files/a%2Fb',
    '/files/a%2fb%5Cc',
    '/files/https%3A%2F%2Fexample.org%2Fx%25',
    '/files/%2F',
    '/files/x%2F..y%2F...',
    '/files/also/a%2Fb',
    '/strict/a%252Fb',
    '/strict/100%25',
    '/p/one/a%2Fb',
  ])('passes byte for byte on a route that allows it: %s', (path) => expect(forwarded(path)).toBe(path));

  it.each([
    ['a route that does not allow it', '/strict/a%2Fb'],
    ['a path that leads to another route once decoded', '/files/admin%2Fx'],
    ['one with backslashes', '/files/admin%5Cx'],
    ['one with both', '/files/admin%5Cx%2Fy'],
    ['one that does when slashes are merged', '/files/%2Fadmin%2Fx'],
    ['one that does when it is decoded twice', '/files/a%2Fb'.replace('a%2F', '%2561dmin%2F')],
    ['one whose only slash is encoded twice', '/files/admin%252Fx'],
    ['one whose letter is encoded twice', '/files/%2561dmin/x'],
    ['one whose slash is encoded three times, piece by piece', '/files/admin%25%2532%2566x'],
    ['one whose only slash is encoded three times', '/files/admin%25252fx'],
    ['one whose slash is encoded twice, on a route that does not allow it', '/strict%252Fx'],
    ['one whose slash is encoded twice', '/files/admin%252Fx%2Fy'],
    ['one that leads to another route that allows it too', '/files/also%2Fx'],
    ['one that leads to a stricter route from above', '/strict%2Fx'],
    ["one that leads to the gateway's own endpoints", '/v1%2Ftokens'],
    ['one of them itself', '/v1/tokens%2Fx'],
    ['another project once decoded', '/p/one%2Ftwo/x'],
  ])('is refused in %s', (_, path) => expect(forwarded(path)).toBe('not accepted'));

  it.each([
    ['dots behind it', '/files/a%2F../admin/x', /dot segment/],
    ['encoded dots', '/files/%2e%2e%2fadmin', /dot segment/],
    ['dots between two', '/files/a%2F..%2Fadmin', /dot segment/],
    ['dots between a slash and a backslash', '/files/a%2F..%5Cadmin', /dot segment/],
    ['one dot', '/files/.%2Fx', /dot segment/],
    ['dots at the end', '/files/a%2F%2e.', /dot segment/],
    ['dots that are encoded twice', '/files/a%2f%252e%252e%2fadmin', /dot segment/],
    ['nothing, when all is encoded twice', '/files/%252e%252e%252fadmin', /dot segment/],
    ['nothing, when dots are encoded twice', '/strict/%252e%252e/admin', /dot segment/],
    ['slashes that are encoded twice', '/files/a%2f..%252fadmin', /dot segment/],
    ['parameters', '/files;a%2Fadmin/x', /parameters/],
    ['parameters that are encoded twice', '/files/admin%253Bx/y', /parameters/],
    ['a hundred segments', `/files${'/a'.repeat(100)}%2525`, /100 segments/],
    ['encoded parameters', '/files/a%3Bb%2Fx', /parameters/],
    ['a NUL that is encoded twice', '/files/a%2Fb%2500', /NUL/],
    ['more encoding than anybody needs', '/files/a%2F%25252525252e', /too often/],
    ['an empty segment', '/files//a%2Fb', /empty segment/],
    ['a bare backslash', '/files/\\a%2Fb', /backslash/],
  ])('is refused beside %s', (_, path, reason) => expect(forwarded(path)).toMatch(reason));

  it('is refused everywhere when no route allows it', () => {
    expect(parseRoutes(one('require: {}'), 'r').allowEncodedSlashes).toBe(false);
    expect(readTarget('/a/b%2Fc')).toMatchObject({ detail: expect.stringContaining('encoded slash') });
    expect(readTarget('/a/b%5Cc')).toMatchObject({ detail: expect.stringContaining('backslash') });
  });
});

describe.each([false, true])('of any request target, with allowEncodedSlashes: %s', (allowEncodedSlashes) => {
  const routes = parseRoutes(
    JSON.stringify({
      routes: [
        {
          name: 'admin',
          path: '/api/admin/*',
          upstream: 'http://h',
          stripPrefix: '/api',
          require: { scopes: { GET: ['a:admin'] } },
          allowEncodedSlashes,
        },
        {
          name: 'project',
          path: '/api/projects/{project}/*',
          upstream: 'http://h',
          stripPrefix: '/api',
          require: { project: '{project}' },
          allowEncodedSlashes,
        },
        { name: 'api', path: '/api/*', upstream: 'http://h', stripPrefix: '/api', require: {}, allowEncodedSlashes },
      ],
    }),
    'routes.yaml',
  );
  const project = newId();

  /** As a lenient upstream can read a path: parameters dropped, decoded once or again, backslashes as slashes, dots resolved. */
  function lenient(at: string, times: number): string {
    const decode = (text: string) =>
      text.replace(/%[0-9A-Fa-f]{2}/g, (e) => String.fromCharCode(Number.parseInt(e.slice(1), 16)));
    let plain = at.split('?', 1)[0]!.replace(/;[^/]*/g, '');
    for (let i = 0; i < times; i++) plain = decode(plain);
    plain = plain.replaceAll('\\', '/');
    return new URL(`http://h${plain.startsWith('/') ? plain : `/${plain}`}`.replace(/([^:])\/{2,}/g, '$1/')).pathname;
  }

  // Seeded: a failure reports its seed and can be replayed.
  function random(seed: number): () => number {
    let state = seed;
    return () => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return state / 2 ** 32;
    };
  }

  it('the path matched is the path forwarded, even to an upstream that reads paths leniently', () => {
    const pieces = [
      '/',
      '/',
      '/',
      'api',
      'admin',
      'projects',
      project,
      'x',
      '.',
      '..',
      '%2e',
      '%2E%2e',
      '%2f',
      '%5c',
      '\\',
      ';',
      ';a=b',
      '%61',
      '%41',
      '%70rojects',
      'adm%69n',
      '//',
      '%00',
      '%',
      '%2',
      '%25',
      '?',
      '#',
      '&access_token=1',
      ' ',
      '\t',
      'ä',
      '%C3%A4',
      '*',
      '~',
      '%7e',
      'admin;x',
      '..;',
    ];
    let forwardedCount = 0;
    let slashesCount = 0;
    for (let seed = 1; seed <= 60_000; seed++) {
      const next = random(seed);
      const length = 1 + Math.floor(next() * 9);
      const raw = `/api${Array.from({ length }, () => pieces[Math.floor(next() * pieces.length)]).join('')}`;
      const target = readTarget(raw, routes.allowEncodedSlashes);
      if ('detail' in target) continue;
      if (target.readings && !routes.acceptsEncodedSlashes(target)) continue;
      if (target.hasEncodedSlashes) slashesCount++;
      const route = routes.match(target.match);
      const forwarded = route?.upstreamPath(target.path);
      if (!route || forwarded === undefined) continue;
      forwardedCount++;
      for (const seen of [1, 2, 3].map((times) => lenient(forwarded, times))) {
        const report = JSON.stringify({ seed, raw, route: route.name, forwarded, seen });
        // What the upstream reads as an admin path was checked as one.
        if (/^\/admin(\/|$)/.test(seen) && route.name !== 'admin') throw new Error(report);
        if (/^\/projects\/[^/]+(\/|$)/.test(seen) && route.name !== 'project') throw new Error(report);
        if (route.name === 'project') {
          const checked = route.requirement('GET', target.path)!.project;
          // The upstream sees the project that was checked, or no token has it, since ids have no such characters.
          if (checked === project && seen.split('/')[2] !== project) throw new Error(report);
        }
      }
    }
    expect(forwardedCount).toBeGreaterThan(2_000);
    expect(slashesCount > 100).toBe(allowEncodedSlashes);
  });
});
