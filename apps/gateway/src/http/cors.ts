import type { Cors } from '../routes/index.js';
import type { RequestHead } from './request-head.js';

const EXPOSED = 'WWW-Authenticate, X-Request-Id, Retry-After, RateLimit, RateLimit-Policy';

/** A preflight names the method that it asks for (Fetch standard); other OPTIONS requests are the upstream's. */
export const isPreflight = (head: RequestHead): boolean =>
  head.method === 'OPTIONS' && head.origin !== undefined && head.header('access-control-request-method') !== undefined;

/** CORS header lines of a response (Fetch standard). */
export function corsLines(cors: Cors, origin: string | undefined): string {
  const vary = cors.anyOrigin ? '' : 'vary: Origin\r\n';
  if (origin === undefined || !(cors.anyOrigin || cors.origins.has(origin))) return vary;
  return `access-control-allow-origin: ${cors.anyOrigin ? '*' : origin}\r\naccess-control-expose-headers: ${EXPOSED}\r\n${vary}`;
}

/** Header lines of the response to a preflight, always 204; without them the browser blocks the request. */
export function preflightLines(cors: Cors, origin: string | undefined): string {
  const lines = corsLines(cors, origin);
  if (!lines.startsWith('access-control-allow-origin')) return lines;
  return `${lines}access-control-allow-methods: ${cors.allowMethods}\r\naccess-control-allow-headers: ${cors.allowHeaders}\r\naccess-control-max-age: 600\r\n`;
}
