import { isUtf8 } from 'node:buffer';
import { readFileSync } from 'node:fs';
import { isIP, type Socket } from 'node:net';
import {
  CALLER_ADDRESS_HEADER,
  ERRORS,
  GATEWAY_PROOF_HEADER,
  gatewayProofMatcher,
  isRequestId,
  LIMITS,
  problem,
  REQUEST_ID_HEADER,
} from '@latchkey/contracts';
import { type Logger, liveMatcher, newId } from '@latchkey/runtime';
import { hideSecrets } from '@latchkey/token-format';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { TokenServiceConfig } from '../config.js';
import { type RequestContext, requestContext } from './context.js';
import { cookieName, readCookie } from './cookies.js';
import { ApiError, badField } from './http.errors.js';

/** Metadata key of a controller's method: the call of ENDPOINTS that it handles. */
export const ENDPOINT_METADATA = 'latchkey:endpoint';

export type LatchkeyRequest = FastifyRequest & { latchkey: RequestContext; sessionCookie?: string | undefined };

const USER_AGENT_LENGTH_MAX = 200;
const PROOF_WARNING_EVERY_MS = 60_000;
/** A body refused for its length is still read to its end, and discarded, when its Content-Length is at most this. */
const DISCARDED_BYTES_MAX = 4 * LIMITS.jsonBodyBytesMax;

/** Fastify with a limit on every input, fixed headers on every response, and every error as a problem. */
export function createAdapter(config: TokenServiceConfig, logger: Logger): FastifyAdapter {
  const contextOf = contextReader(config, logger);
  const { API_TLS_CERT_FILE: certificate, API_TLS_KEY_FILE: key } = config;
  const adapter = new FastifyAdapter({
    ...(certificate &&
      key && { https: { cert: readFileSync(certificate), key: readFileSync(key), minVersion: 'TLSv1.2' } }),
    bodyLimit: LIMITS.jsonBodyBytesMax,
    trustProxy: false,
    requestTimeout: 30_000,
    keepAliveTimeout: 75_000,
    connectionTimeout: 0,
    http: { maxHeaderSize: LIMITS.headerBytesMax },
    forceCloseConnections: 'idle',
    routerOptions: { maxParamLength: 500, ignoreTrailingSlash: false },
    clientErrorHandler: respondUnreadable,
    frameworkErrors: (_error: Error, request: FastifyRequest, reply: FastifyReply) => {
      const { requestId } = contextOf(request);
      reply
        .status(400)
        .headers({ 'content-type': 'application/problem+json', ...fixedHeaders(requestId) })
        .send(JSON.stringify(problem('invalid_request', 'The path is invalid.', requestId)));
    },
  });
  const fastify = adapter.getInstance() as unknown as FastifyInstance;
  const name = cookieName(config);
  fastify.addHook('onRequest', (request, reply, done) => {
    const own = request as LatchkeyRequest;
    own.latchkey = contextOf(request);
    own.sessionCookie = readCookie(request.headers.cookie, name);
    reply.headers(fixedHeaders(own.latchkey.requestId));
    done();
  });
  // Entered after the body has been read: the events of reading run outside any context entered before.
  fastify.addHook('preValidation', (request, _reply, done) => {
    requestContext.run((request as LatchkeyRequest).latchkey, done);
  });
  fastify.addHook('onSend', (request, reply, _payload, done) => {
    // If the connection closes while the caller is still sending, the response is lost.
    if (reply.statusCode === 413 && isDiscardable(request.headers)) reply.removeHeader('connection');
    done();
  });
  const json = fastify.getDefaultJsonParser('error', 'error');
  const parseText = (type: string, parse: (request: FastifyRequest, text: string, done: Done) => void) =>
    fastify.addContentTypeParser(type, { parseAs: 'buffer' }, (request, body, done) => {
      const text = textOf(request, body as Buffer);
      if (text instanceof ApiError) done(text);
      else parse(request, text, done);
    });
  parseText('application/json', (request, text, done) => {
    // An empty "application/json" body counts as no body: each call defines whether it needs one.
    if (text === '') done(null, undefined);
    else json(request, text, done);
  });
  parseText('application/x-www-form-urlencoded', (_request, text, done) => {
    done(null, Object.fromEntries(entriesOnce(new URLSearchParams(text))));
  });
  return adapter;
}

type Done = (error: Error | null, body?: unknown) => void;

/** Invalid UTF-8 is refused, not replaced: it would be stored as another text than was sent (RFC 8259 section 8.1). */
function textOf(request: FastifyRequest, body: Buffer): string | ApiError {
  const coding = request.headers['content-encoding'];
  if (coding !== undefined && coding.trim().toLowerCase() !== 'identity')
    return new ApiError('unsupported_media_type', 'Send the body without a content coding.', {
      headers: { 'accept-encoding': 'identity' },
    });
  return isUtf8(body) ? body.toString('utf8') : badField('body', 'is not valid UTF-8');
}

const isDiscardable = ({ 'content-length': length, expect }: FastifyRequest['headers']): boolean =>
  length !== undefined && Number(length) <= DISCARDED_BYTES_MAX && expect === undefined;

/** What is not HTTP, or exceeds a limit of the parser, never reaches Fastify's routes: the response goes to the raw socket. */
function respondUnreadable(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const code = error.code === 'HPE_HEADER_OVERFLOW' ? 'header_too_large' : 'invalid_request';
  const requestId = newId();
  const { status, title } = ERRORS[code];
  const detail =
    code === 'header_too_large' ? 'All headers together exceed 16 KiB.' : 'This is not an HTTP/1.1 request.';
  const body = JSON.stringify(problem(code, detail, requestId));
  const headers = {
    'content-type': 'application/problem+json; charset=utf-8',
    'content-length': Buffer.byteLength(body),
    connection: 'close',
    ...fixedHeaders(requestId),
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.end(`HTTP/1.1 ${status} ${title}\r\n${lines.join('')}\r\n${body}`);
}

/** RFC 6749 section 3.1: a parameter must not be repeated; one that is becomes a list, which no schema accepts. */
function entriesOnce(form: URLSearchParams): [string, string | string[]][] {
  return [...new Set(form.keys())].map((name) => {
    const all = form.getAll(name);
    return [name, all.length === 1 ? all[0]! : all];
  });
}

const fixedHeaders = (requestId: string) => ({
  'x-request-id': requestId,
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
});

/** Address and request id come from the gateway when the request proves that it came through one, else from the socket. */
function contextReader(config: TokenServiceConfig, logger: Logger): (request: FastifyRequest) => RequestContext {
  const isProof = liveMatcher(() => config.GATEWAY_PROOF_SECRET, gatewayProofMatcher);
  let warnedAt = Number.NEGATIVE_INFINITY;
  const warnOfProof = (peer: string | undefined) => {
    if (performance.now() - warnedAt < PROOF_WARNING_EVERY_MS) return;
    warnedAt = performance.now();
    logger.warn(
      { peer },
      'a gateway proof was not accepted, so the sender counts as the caller: is its GATEWAY_PROOF_SECRET among those here?',
    );
  };
  return (request) => {
    const header = (name: string) => {
      const value = request.headers[name];
      return typeof value === 'string' ? value : undefined;
    };
    const proof = header(GATEWAY_PROOF_HEADER);
    const throughGateway = proof !== undefined && isProof(proof);
    if (proof !== undefined && !throughGateway) warnOfProof(request.socket.remoteAddress);
    const given = throughGateway ? header(REQUEST_ID_HEADER) : undefined;
    // Not X-Forwarded-For: the caller controls its left end, and only the gateway has the list of trusted proxies.
    const address = throughGateway ? header(CALLER_ADDRESS_HEADER) : undefined;
    return {
      requestId: given && isRequestId(given) ? given : newId(),
      ip: (address && isIP(address) ? address : request.socket.remoteAddress) ?? null,
      userAgent: hideSecrets(header('user-agent') ?? '').slice(0, USER_AGENT_LENGTH_MAX) || null,
    };
  };
}
