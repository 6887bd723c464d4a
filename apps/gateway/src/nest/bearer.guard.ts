import { Injectable } from '@nestjs/common';
import { AuthGuard, PassportStrategy } from '@nestjs/passport';
import type { FastifyRequest } from 'fastify';
import { Strategy } from 'passport-http-bearer';
import type { Decision, Inquiry } from '../check/index.js';
import { contexts, RefusalError } from './refusals.js';

export type Allowed = Extract<Decision, { allowed: true }>;

/** Passport's Bearer strategy, standing on the decision that all doors share. */
@Injectable()
export class BearerStrategy extends PassportStrategy(Strategy, 'bearer') {
  constructor() {
    super({ passReqToCallback: true, realm: 'latchkey' });
  }

  async validate(req: FastifyRequest): Promise<Allowed> {
    const decision = await contexts.get(req.raw)!.checks.decide(inquiryOf(req));
    if (!decision.allowed) throw new RefusalError(decision.refusal);
    return decision;
  }
}

/**
 * The stock guard swallows the challenge and turns a malformed header into 401; this one answers as RFC 6750 says. A
 * token in the query never comes this far: the public door refuses it.
 */
@Injectable()
export class BearerGuard extends AuthGuard('bearer') {
  override handleRequest<T = Allowed>(
    error: unknown,
    allowed: unknown,
    _info: unknown,
    context: { switchToHttp(): { getRequest(): FastifyRequest } },
    status?: unknown,
  ): T {
    if (error) throw error;
    if (allowed) return allowed as T;
    if (status === 400) {
      const detail = 'The Authorization header must be "Bearer", one space and the token.';
      throw new RefusalError({ code: 'invalid_request', detail });
    }
    const req = context.switchToHttp().getRequest();
    const { refusal } = contexts.get(req.raw)!.checks.withoutCredentials(inquiryOf(req));
    throw new RefusalError(refusal);
  }
}

function inquiryOf(req: FastifyRequest): Inquiry {
  const head = contexts.get(req.raw)!.head;
  const { requestId, ip, userAgent, authorization } = head;
  return { route: 'whoami', method: req.method, requestId, ip, userAgent, authorization, scopes: [] };
}
