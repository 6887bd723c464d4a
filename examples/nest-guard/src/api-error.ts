import { randomUUID } from 'node:crypto';
import { challenge, type ErrorCode, problem } from '@latchkey/contracts';
import { type ArgumentsHost, Catch, type ExceptionFilter, Inject } from '@nestjs/common';
import type { FastifyReply } from 'fastify';
import { LATCHKEY_OPTIONS, type LatchkeyOptions } from './latchkey.js';

/** An error response of the guard: its code from the closed list, a text, and the scopes that would have been enough. */
export class ApiError extends Error {
  constructor(
    readonly code: ErrorCode,
    readonly detail: string,
    readonly scopes: readonly string[] = [],
  ) {
    super(detail);
  }
}

/** Maps an `ApiError` to HTTP by RFC 6750 and RFC 9457: the status, `WWW-Authenticate`, and problem details. */
@Catch(ApiError)
export class ApiErrorFilter implements ExceptionFilter<ApiError> {
  constructor(@Inject(LATCHKEY_OPTIONS) private readonly options: LatchkeyOptions) {}

  catch({ code, detail, scopes }: ApiError, host: ArgumentsHost): void {
    const reply = host.switchToHttp().getResponse<FastifyReply>();
    const body = problem(code, detail, randomUUID());
    const authenticate = challenge(code, this.options.realm ?? 'api', scopes);
    if (authenticate) reply.header('www-authenticate', authenticate);
    if (body.status === 503 || body.status === 429) reply.header('retry-after', '1');
    void reply
      .status(body.status)
      .header('content-type', 'application/problem+json')
      .header('cache-control', 'no-store')
      .send(JSON.stringify(body));
  }
}
