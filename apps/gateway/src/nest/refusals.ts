import type { IncomingMessage } from 'node:http';
import { type Logger, newId } from '@latchkey/runtime';
import { type ArgumentsHost, Catch, type ExceptionFilter, HttpException } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Checks } from '../check/index.js';
import { type Refusal, type RequestHead, renderRefusal } from '../http/index.js';

/** A refusal on its way to the filter. */
export class RefusalError extends Error {
  override name = 'RefusalError';
  constructor(readonly refusal: Refusal) {
    super(refusal.detail);
  }
}

/** What the bare doors have read of a request already, and the checks of the gateway that it came to. */
export interface Context {
  readonly head: RequestHead;
  readonly checks: Checks;
}

/** By request, because passport keeps its strategies for the whole process, whichever gateway made them. */
export const contexts = new WeakMap<IncomingMessage, Context>();

/** Writes every error of Nest's controllers as the bare doors do. */
@Catch()
export class RefusalFilter implements ExceptionFilter {
  constructor(private readonly logger: Logger) {}

  catch(error: unknown, host: ArgumentsHost): void {
    const reply = host.switchToHttp().getResponse<FastifyReply>();
    const { raw } = host.switchToHttp().getRequest<FastifyRequest>();
    const requestId = contexts.get(raw)?.head.requestId ?? newId();
    const { status, headers, body } = renderRefusal(this.#refusalOf(error, requestId), requestId);
    void reply.code(status).headers(headers).send(body);
  }

  #refusalOf(error: unknown, requestId: string): Refusal {
    if (error instanceof RefusalError) return error.refusal;
    if (error instanceof HttpException && error.getStatus() === 404)
      return { code: 'not_found', detail: 'Nothing is at this path.' };
    if (error instanceof HttpException && error.getStatus() < 500)
      return { code: 'invalid_request', detail: error.message };
    this.logger.error({ err: error, requestId }, 'a request failed');
    return { code: 'internal', detail: 'The gateway failed; its log names this requestId.' };
  }
}
