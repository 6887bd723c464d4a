import { MALFORMED } from '@latchkey/runtime';
import { type ExecutionContext, Injectable } from '@nestjs/common';
import { AuthGuard } from '@nestjs/passport';
import { Checks, type Inquiry } from '../check/index.js';
import { type Allowed, BearerStrategy } from './bearer.strategy.js';
import { GatewayError, type GatewayRequest } from './request.js';

/**
 * Lets in whoever's token is allowed all that the endpoint asks. The stock guard swallows the challenge and turns a
 * malformed header into 401; this one answers as RFC 6750 says.
 */
@Injectable()
export abstract class BearerGuard extends AuthGuard() {
  constructor(
    strategy: BearerStrategy,
    private readonly checks: Checks,
  ) {
    super({ defaultStrategy: strategy.registeredAs, session: false });
  }

  /**
   * What this request asks of a token; nothing: it is open to everyone. A token in the query must have been refused.
   * @throws GatewayError
   */
  protected abstract inquiriesOf(request: GatewayRequest): readonly Inquiry[];

  override async canActivate(context: ExecutionContext): Promise<boolean> {
    const request = context.switchToHttp().getRequest<GatewayRequest>();
    request.inquiries = this.inquiriesOf(request);
    return request.inquiries.length === 0 || ((await super.canActivate(context)) as boolean);
  }

  override handleRequest<T = Allowed>(
    error: unknown,
    allowed: unknown,
    _info: unknown,
    context: ExecutionContext,
    status?: unknown,
  ): T {
    if (error) throw error;
    if (allowed) return allowed as T;
    const { inquiries } = context.switchToHttp().getRequest<GatewayRequest>();
    const read = status === 400 ? MALFORMED : undefined;
    throw new GatewayError(this.checks.withoutSecret(inquiries[0]!, read).refusal);
  }
}
