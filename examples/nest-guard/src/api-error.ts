import { randomUUID } from 'node:crypto';
import { challenge, type ErrorCode, problem } from '@latchkey/contracts';
import { type ArgumentsHost, Catch, type ExceptionFilter, Inject } from '@nestjs/common';
import type { FastifyReply } from 'fastify';
import { LATCHKEY_OPTIONS, type LatchkeyOptions } from './latchkey.js';

/** The guard's No: which error of the closed list, in which words, and the scopes that would have been enough. */
export class Refusal extends Error {
  constructor(
    readonly code: ErrorCode,
    readonly detail: string,
    readonly scopes: readonly string[] = [],
  ) {
    super(detail);
  }
}

/** Answers a refusal as RFC 6750 and RFC 9457 say: the status, `WWW-Authenticate`, and problem details. */
@Catch(Refusal)
export class RefusalFilter implements ExceptionFilter<Refusal> {
  constructor(@Inject(LATCHKEY_OPTIONS) private readonly options: LatchkeyOptions) {}

  catch({ code, detail, scopes }: Refusal, host: ArgumentsHost): void {
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
