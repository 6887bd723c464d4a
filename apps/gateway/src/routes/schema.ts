import { SCOPE_PATTERN } from '@latchkey/contracts';
import { z } from 'zod';

/** Paths that the gateway serves itself; a route must not begin with them. */
export const OWN_PATHS = ['/v1', '/oauth2', '/mcp', '/gateway', '/healthz', '/readyz'] as const;
/** Names under which checks outside the routes file are counted. */
export const OWN_ROUTE_NAMES = ['forward-auth', 'ext-authz', 'whoami', 'rpc', 'introspection', 'management'] as const;
export const ROUTES_MAX = 1_000;
const KEEP_ALIVE_MS_MAX = 600_000;

const scopes = z
  .array(z.string().regex(SCOPE_PATTERN, 'a scope looks like "documents:read"'))
  .max(50, 'at most 50 scopes');

const METHOD = /^(\*|[A-Z]{3,20})$/;
const scopesByMethod = z
  .record(z.string().regex(METHOD, 'a method is in capitals, or "*" for all others'), scopes)
  .refine((byMethod) => !('HEAD' in byMethod), 'HEAD counts as GET: leave it out')
  .refine(
    (byMethod) => !('CONNECT' in byMethod) && !('TRACE' in byMethod),
    'CONNECT and TRACE are never forwarded: leave them out',
  );

/** As many as the bits of a number that tells which were tried. */
const UPSTREAMS_MAX = 32;

const upstream = z.string().refine((text) => {
  if (!URL.canParse(text)) return false;
  const url = new URL(text);
  const web = url.protocol === 'http:' || url.protocol === 'https:';
  return (
    web && !url.username && !url.password && !url.search && !url.hash && !text.includes('?') && !text.includes('#')
  );
}, 'must be an http:// or https:// address without user name, query or fragment');

// Literal segments are unreserved characters only (RFC 3986 section 2.3), so that no percent-encoded spelling of a path
// bypasses its route.
const path = z
  .string()
  .max(1_000)
  .regex(/^\//, 'must begin with "/"')
  .superRefine((text, context) => {
    const segments = text.slice(1).split('/');
    const names = new Set<string>();
    segments.forEach((segment, i) => {
      const capture = /^\{([a-z][A-Za-z0-9_]{0,31})\}$/.exec(segment);
      const addIssue = (message: string) => context.addIssue({ code: 'custom', message });
      if (capture) {
        if (names.has(capture[1]!)) addIssue(`captures {${capture[1]}} twice`);
        names.add(capture[1]!);
      } else if (segment === '*') {
        if (i < segments.length - 1) addIssue('"*" is allowed only as the last segment');
      } else if (segment === '') addIssue(i < segments.length - 1 ? 'has an empty segment' : 'must not end in "/"');
      else if (segment === '.' || segment === '..') addIssue('has a dot segment');
      else if (!/^[A-Za-z0-9._~-]+$/.test(segment))
        addIssue(`segment "${segment}" can have letters, digits and "-._~", or be one {capture} or a last "*"`);
    });
  });

const cors = z.strictObject({
  origins: z
    .array(
      z
        .string()
        .refine(
          (origin) => origin === '*' || (URL.canParse(origin) && new URL(origin).origin === origin),
          'an origin is "*" or looks like https://app.example.org',
        ),
    )
    .min(1, 'name at least one origin')
    .max(100),
  headers: z
    .array(z.string().regex(/^[A-Za-z0-9-]{1,100}$/, 'is not a header name'))
    .max(100)
    .default([]),
});

/** RFC 1123 section 2.1; the name of an address cannot be asked for (RFC 6066 section 3). */
const HOST_NAME =
  /^(?=.{1,253}$)(?!.*\.\d+$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?)*$/i;
const fileName = z.string().min(1, 'names a file').max(4_096);

const tls = z
  .strictObject({
    ca: fileName.optional(),
    certificate: fileName.optional(),
    key: fileName.optional(),
    serverName: z.string().regex(HOST_NAME, 'is not a host name').optional(),
  })
  .superRefine(({ certificate, key, ...others }, context) => {
    const addIssue = (path: string[], message: string) => context.addIssue({ code: 'custom', path, message });
    if (certificate !== undefined && key === undefined) addIssue(['certificate'], 'needs key, the file of its key');
    if (key !== undefined && certificate === undefined)
      addIssue(['key'], 'needs certificate, the file that it belongs to');
    if (!certificate && !key && !others.ca && !others.serverName)
      addIssue([], 'set ca, certificate and key, or serverName');
  });

const CHECK_TIMEOUT_MS = 2_000;

const healthCheck = z
  .strictObject({
    path: z
      .string()
      .max(1_000)
      .regex(/^\/[\x21\x22\x24-\x7e]*$/, 'begins with "/" and has no spaces'),
    intervalMs: z.int().min(500).max(3_600_000).default(5_000),
    timeoutMs: z.int().min(100).max(60_000).optional(),
  })
  .refine(({ intervalMs, timeoutMs = 0 }) => timeoutMs <= intervalMs, {
    path: ['timeoutMs'],
    message: 'must not be longer than intervalMs',
  })
  .transform(({ path, intervalMs, timeoutMs = Math.min(CHECK_TIMEOUT_MS, intervalMs) }) => ({
    path,
    intervalMs,
    timeoutMs,
  }));

export const routeSchema = z
  .strictObject({
    name: z
      .string()
      .regex(/^[a-z0-9][a-z0-9-]{0,63}$/, 'is lower-case letters, digits and "-", at most 64')
      .refine(
        (name) => !(OWN_ROUTE_NAMES as readonly string[]).includes(name),
        'is a name that the gateway itself uses',
      ),
    path,
    upstream: upstream.optional(),
    upstreams: z.array(upstream).min(1, 'name at least one').max(UPSTREAMS_MAX, `at most ${UPSTREAMS_MAX}`).optional(),
    kind: z.enum(['http', 'mcp']).default('http'),
    public: z.boolean().default(false),
    require: z
      .strictObject({
        project: z
          .string()
          .regex(/^(\{[a-z][A-Za-z0-9_]{0,31}\}|[0-9a-f-]{36})$/, 'is a {capture} of the path or a project id')
          .optional(),
        scopes: scopesByMethod.optional(),
      })
      .optional(),
    tools: z.record(z.string().min(1).max(200), scopes).optional(),
    stripPrefix: z
      .string()
      .regex(/^(\/[A-Za-z0-9._~-]+)+$/, 'begins with "/" and does not end in it')
      .optional(),
    timeoutMs: z.int().min(1).max(3_600_000).default(30_000),
    healthCheck: healthCheck.optional(),
    tls: tls.optional(),
    keepAliveMs: z.int().min(0).max(KEEP_ALIVE_MS_MAX).optional(),
    preserveHost: z.boolean().default(false),
    allowEncodedSlashes: z.boolean().default(false),
    forwardAuthorization: z.boolean().default(false),
    trustedOrigin: z.boolean().default(false),
    cors: cors.optional(),
  })
  .superRefine((route, context) => {
    const addIssue = (path: (string | number)[], message: string) =>
      context.addIssue({ code: 'custom', path, message });
    const own = ownPathOf(route.path);
    if (own) addIssue(['path'], `${own} is served by the gateway itself`);
    if (route.path === '/') addIssue(['path'], '"/" is the path of the console');
    if (route.public && route.require)
      addIssue(['require'], 'a public route requires no token: drop public or require');
    if (route.public && route.forwardAuthorization)
      addIssue(['forwardAuthorization'], 'on a public route any Authorization is dropped');
    if (route.public && route.kind === 'mcp') addIssue(['public'], 'an MCP route cannot be public');
    if (route.kind === 'mcp' && !route.tools)
      addIssue(['tools'], 'an MCP route names the scopes of its tools; "*" stands for all others');
    if (route.kind !== 'mcp' && route.tools) addIssue(['tools'], 'only a route of kind mcp has tools');
    if (!route.public && !route.require && !route.tools)
      addIssue([], 'set require with scopes, require: {} for any valid token, or public: true');
    const project = route.require?.project;
    if (project?.startsWith('{') && !route.path.includes(`/${project}`))
      addIssue(['require', 'project'], `${project} is not captured by the path`);
    if (route.upstream !== undefined && route.upstreams)
      addIssue(['upstreams'], 'is in place of upstream: drop one of them');
    const addresses = route.upstreams ?? (route.upstream === undefined ? [] : [route.upstream]);
    if (addresses.length === 0 && !route.upstreams) addIssue(['upstream'], 'is missing: set upstream, or upstreams');
    const urls = addresses.filter((address) => URL.canParse(address)).map((address) => new URL(address));
    urls.forEach((url, i) => {
      const [first] = urls as [URL];
      if (urls.findIndex(({ origin }) => origin === url.origin) < i)
        addIssue(['upstreams', i], `${url.origin} is there twice`);
      if (url.protocol !== first.protocol || url.pathname !== first.pathname)
        addIssue(['upstreams', i], 'must have the scheme and the path of the first one');
    });
    if (route.healthCheck && !route.upstreams)
      addIssue(['healthCheck'], 'is for upstreams: a single one gets all requests in any case');
    if (route.tls && urls[0]?.protocol === 'http:') addIssue(['tls'], 'is for upstreams of https://');
    const literal = literalPrefix(route.path);
    if (route.stripPrefix && literal !== route.stripPrefix && !literal.startsWith(`${route.stripPrefix}/`))
      addIssue(['stripPrefix'], `is not a prefix of the path's fixed part ${literal}`);
  });

/** The gateway's own path that a path is, or is below. */
export const ownPathOf = (path: string): string | undefined =>
  OWN_PATHS.find((prefix) => path === prefix || path.startsWith(`${prefix}/`));

/** The path up to its first capture or `*`. */
export function literalPrefix(path: string): string {
  const end = path.search(/[{*]/);
  return end < 0 ? path : path.slice(0, end);
}

export const routesFileSchema = z.strictObject({
  routes: z.array(routeSchema).max(ROUTES_MAX, `at most ${ROUTES_MAX} routes`),
});

export type RouteSpec = z.output<typeof routeSchema>;
