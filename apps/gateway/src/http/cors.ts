import type { Cors } from '../routes/index.js';

const EXPOSED = 'WWW-Authenticate, X-Request-Id, Retry-After, RateLimit, RateLimit-Policy';

/** CORS headers of a response (Fetch standard). Alternating names and values. */
export function corsHeaders(cors: Cors, origin: string | undefined): string[] {
  if (origin === undefined || !(cors.anyOrigin || cors.origins.has(origin)))
    return cors.anyOrigin ? [] : ['vary', 'Origin'];
  const shared = [
    'access-control-allow-origin',
    cors.anyOrigin ? '*' : origin,
    'access-control-expose-headers',
    EXPOSED,
  ];
  return cors.anyOrigin ? shared : [...shared, 'vary', 'Origin'];
}

/** Headers of the response to a preflight, always 204; without them the browser blocks the request. */
export function preflightHeaders(cors: Cors, origin: string | undefined): string[] {
  const headers = corsHeaders(cors, origin);
  if (headers[0] !== 'access-control-allow-origin') return headers;
  return [
    ...headers,
    'access-control-allow-methods',
    cors.allowMethods,
    'access-control-allow-headers',
    cors.allowHeaders,
    'access-control-max-age',
    '600',
  ];
}
