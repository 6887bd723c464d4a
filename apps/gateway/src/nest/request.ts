import { REQUEST_ID_HEADER } from '@latchkey/contracts';
import { type Logger, newId } from '@latchkey/runtime';
import { type ArgumentsHost, Catch, type ExceptionFilter, HttpException } from '@nestjs/common';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { AuthorizationRequest, Decision } from '../check/index.js';
import { type ErrorResponse, RequestHead, renderError } from '../http/index.js';

/** A request to a controller. */
export interface GatewayRequest extends FastifyRequest {
  head: RequestHead;
  /** What is required of its token. */
  authorizationRequests: readonly AuthorizationRequest[];
  /** Set once the token is allowed; undefined where the path is public. */
  user?: Extract<Decision, { allowed: true }>;
}

/** An error response, thrown to the filter. */
export class GatewayError extends Error {
  override name = 'GatewayError';
  constructor(readonly response: ErrorResponse) {
    super(response.detail);
  }
}

/** Fastify for requests without bodies; heads are parsed as at the public port. */
export function createAdapter(isTrustedProxy: (ip: string) => boolean): FastifyAdapter {
  const adapter = new FastifyAdapter({ bodyLimit: 1 });
  const fastify = adapter.getInstance() as unknown as FastifyInstance;
  fastify.addHook('onRequest', (request, reply, done) => {
    const { head, error } = RequestHead.ofNode(request.raw, isTrustedProxy);
    // The id that the public port has given the request.
    head.requestId = String(request.headers[REQUEST_ID_HEADER]);
    if (error) return refuse(reply, error, head.requestId);
    (request as GatewayRequest).head = head;
    done();
  });
  return adapter;
}

/** Writes errors of Nest's controllers as the public port does. */
@Catch()
export class ErrorFilter implements ExceptionFilter {
  constructor(private readonly logger: Logger) {}

  catch(error: unknown, host: ArgumentsHost): void {
    const http = host.switchToHttp();
    const requestId = http.getRequest<Partial<GatewayRequest>>().head?.requestId ?? newId();
    refuse(http.getResponse<FastifyReply>(), this.#responseFor(error, requestId), requestId);
  }

  #responseFor(error: unknown, requestId: string): ErrorResponse {
    if (error instanceof GatewayError) return error.response;
    if (error instanceof HttpException && error.getStatus() === 404)
      return { code: 'not_found', detail: 'There is no endpoint at this path.' };
    if (error instanceof HttpException && error.getStatus() < 500)
      return { code: 'invalid_request', detail: error.message };
    this.logger.error({ err: error, requestId }, 'a request failed');
    return { code: 'internal', detail: 'The gateway failed; see its log for this requestId.' };
  }
}

function refuse(reply: FastifyReply, error: ErrorResponse, requestId: string): void {
  const { status, headers, body } = renderError(error, requestId);
  void reply.code(status).headers(headers).send(body);
}
