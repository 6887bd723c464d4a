import { challenge, ENDPOINTS, type Endpoint, ERRORS, LIMITS, oauthError, problem } from '@latchkey/contracts';
import { type Logger, sqlState } from '@latchkey/runtime';
import { type ArgumentsHost, Catch, type ExceptionFilter, HttpException, Inject } from '@nestjs/common';
import type { FastifyReply } from 'fastify';
import { LOGGER } from '../config.js';
import { Database, isDatabaseUnavailable } from '../database/index.js';
import { ApiError, type LatchkeyRequest, unavailable } from '../http/index.js';
import { MANAGEMENT_ROUTE, UsageService } from '../usage/index.js';

/** Maps every error of the HTTP API to `application/problem+json` (RFC 9457). */
@Catch()
export class ProblemFilter implements ExceptionFilter {
  constructor(
    @Inject(LOGGER) private readonly logger: Logger,
    private readonly usage: UsageService,
    private readonly database: Database,
  ) {}

  catch(error: unknown, host: ArgumentsHost): void {
    const http = host.switchToHttp();
    this.#respond(error, http.getRequest<LatchkeyRequest>(), http.getResponse<FastifyReply>());
  }

  #respond(error: unknown, request: LatchkeyRequest, reply: FastifyReply): void {
    const apiError = this.#toApiError(error, request);
    const { requestId } = request.latchkey;
    const { status } = ERRORS[apiError.code];
    if (reply.sent || reply.raw.headersSent) {
      reply.raw.destroy();
      return;
    }
    this.#reportDenial(apiError, request);
    const needsChallenge =
      apiError.extra.bearer || apiError.code === 'unauthenticated' || apiError.code === 'invalid_token';
    const authenticate = needsChallenge && challenge(apiError.code, 'latchkey', apiError.extra.scopes);
    const body = problem(apiError.code, apiError.detail, requestId, apiError.extra.errors);
    const ofOauth = request.url.startsWith('/oauth2/') && oauthError(apiError.code);
    reply
      .status(status)
      .headers({
        'content-type': 'application/problem+json; charset=utf-8',
        ...(authenticate && { 'www-authenticate': authenticate }),
        ...apiError.extra.headers,
      })
      .send(JSON.stringify({ ...body, ...(ofOauth && { error: ofOauth }) }));
  }

  #reportDenial({ code, extra }: ApiError, request: LatchkeyRequest): void {
    const { actor, requestId, ip } = request.latchkey;
    const isMissingRight = code === 'insufficient_scope' && actor?.type === 'token';
    const denial = extra.denial ?? (isMissingRight ? { reason: code, tokenId: actor.tokenId } : undefined);
    if (!denial) return;
    const { reason, tokenId = null } = denial;
    this.usage.deny({ requestId, reason, tokenId, route: MANAGEMENT_ROUTE, method: request.method, ip: ip ?? '' });
  }

  #toApiError(error: unknown, request: LatchkeyRequest): ApiError {
    if (error instanceof ApiError) return error;
    const { requestId } = request.latchkey;
    if (isDatabaseUnavailable(error)) {
      this.logger.debug({ requestId }, 'a request failed: PostgreSQL is unavailable or overloaded');
      this.database.outage.failed((error as Error).message, { requestId });
      return unavailable('The database is unavailable. Whether the request took effect is unknown; try again.');
    }
    // Text that PostgreSQL cannot store (NUL) passed a schema: the input is at fault.
    if (sqlState(error) === '22021' || sqlState(error) === '22P05')
      return new ApiError('invalid_request', 'A text contains a character that cannot be stored.');
    if (error instanceof HttpException && error.getStatus() < 500) return frameworkError(error.getStatus(), request);
    this.logger.error({ requestId, err: error }, 'a request failed');
    return new ApiError(
      'internal',
      `The request failed with an internal error. Give an administrator the requestId ${requestId}.`,
    );
  }
}

/** An error of Fastify or Nest from before the request reaches a handler. */
function frameworkError(status: number, request: LatchkeyRequest): ApiError {
  switch (status) {
    case 404:
      return routeError(request);
    case 413:
      return new ApiError('too_large', `The body is larger than ${LIMITS.jsonBodyBytesMax} bytes.`);
    case 415:
      return new ApiError('unsupported_media_type', 'Send `Content-Type: application/json`.');
    default:
      return new ApiError(
        'invalid_request',
        'The body cannot be read: it is not valid JSON, or has a member named __proto__ or constructor.',
        {
          errors: [{ field: 'body', message: 'is not valid JSON, or has a member that no request may have' }],
        },
      );
  }
}

/** Paths besides those of ENDPOINTS. */
const OTHER_PATHS = [
  { method: 'POST', path: '/mcp' },
  { method: 'GET', path: '/v1/openapi.json' },
  { method: 'GET', path: '/v1/docs' },
];

/** No route: 405 with `Allow` where the path exists with another method (RFC 9110 section 15.5.6), else 404. */
function routeError(request: LatchkeyRequest): ApiError {
  const path = request.url.split('?', 1)[0]!;
  const allowed = [...(Object.values(ENDPOINTS) as Endpoint[]), ...OTHER_PATHS]
    .filter((endpoint) => matches(endpoint.path, path))
    .map(({ method }) => method);
  if (allowed.length === 0)
    return new ApiError('not_found', 'There is no such path. See /v1/openapi.json for the existing ones.');
  const allow = [...new Set(allowed)].join(', ');
  return new ApiError('method_not_allowed', `This path allows only ${allow}.`, { headers: { allow } });
}

const matches = (template: string, path: string) => new RegExp(`^${template.replace(/\{\w+\}/g, '[^/]+')}$`).test(path);
