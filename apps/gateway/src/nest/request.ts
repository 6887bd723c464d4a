import { type Logger, newId } from '@latchkey/runtime';
import { type ArgumentsHost, Catch, type ExceptionFilter, HttpException } from '@nestjs/common';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Decision, Inquiry } from '../check/index.js';
import { type ErrorResponse, type RequestHead, readHead, renderError } from '../http/index.js';

/** A request as the controllers see it. */
export interface GatewayRequest extends FastifyRequest {
  head: RequestHead;
  /** What is asked of its token. */
  inquiries: readonly Inquiry[];
  /** Set once the token is allowed that; undefined where the path is open to everyone. */
  user?: Extract<Decision, { allowed: true }>;
}

/** A refusal on its way to the filter. */
export class GatewayError extends Error {
  override name = 'GatewayError';
  constructor(readonly refusal: ErrorResponse) {
    super(refusal.detail);
  }
}

/** Fastify for requests without bodies, whose heads are read as the bare doors read them. */
export function createAdapter(isTrustedProxy: (ip: string) => boolean): FastifyAdapter {
  const adapter = new FastifyAdapter({ bodyLimit: 1 });
  const fastify = adapter.getInstance() as unknown as FastifyInstance;
  fastify.addHook('onRequest', (request, reply, done) => {
    const read = readHead(request.raw, isTrustedProxy);
    if ('refusal' in read) return refuse(reply, read.refusal, read.requestId);
    (request as GatewayRequest).head = read.head;
    done();
  });
  return adapter;
}

/** Writes every error of Nest's controllers as the bare doors do. */
@Catch()
export class ErrorFilter implements ExceptionFilter {
  constructor(private readonly logger: Logger) {}

  catch(error: unknown, host: ArgumentsHost): void {
    const http = host.switchToHttp();
    const requestId = http.getRequest<Partial<GatewayRequest>>().head?.requestId ?? newId();
    refuse(http.getResponse<FastifyReply>(), this.#refusalOf(error, requestId), requestId);
  }

  #refusalOf(error: unknown, requestId: string): ErrorResponse {
    if (error instanceof GatewayError) return error.refusal;
    if (error instanceof HttpException && error.getStatus() === 404)
      return { code: 'not_found', detail: 'Nothing is at this path.' };
    if (error instanceof HttpException && error.getStatus() < 500)
      return { code: 'invalid_request', detail: error.message };
    this.logger.error({ err: error, requestId }, 'a request failed');
    return { code: 'internal', detail: 'The gateway failed; its log names this requestId.' };
  }
}

function refuse(reply: FastifyReply, refusal: ErrorResponse, requestId: string): void {
  const { status, headers, body } = renderError(refusal, requestId);
  void reply.code(status).headers(headers).send(body);
}
