import { MALFORMED } from '@latchkey/runtime';
import { type ExecutionContext, Injectable } from '@nestjs/common';
import { AuthGuard } from '@nestjs/passport';
import { type AuthorizationRequest, Checks } from '../check/index.js';
import { type Allowed, BearerStrategy } from './bearer.strategy.js';
import { GatewayError, type GatewayRequest } from './request.js';

/**
 * Allows a request whose token has all that the endpoint requires. The stock guard drops the challenge and turns a
 * malformed header into 401; this one responds as RFC 6750 specifies.
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
   * What this request requires of a token; an empty list: it is public. Must refuse a token in the query.
   * @throws GatewayError
   */
  protected abstract authorizationRequestsOf(request: GatewayRequest): readonly AuthorizationRequest[];

  override async canActivate(context: ExecutionContext): Promise<boolean> {
    const request = context.switchToHttp().getRequest<GatewayRequest>();
    request.authorizationRequests = this.authorizationRequestsOf(request);
    return request.authorizationRequests.length === 0 || ((await super.canActivate(context)) as boolean);
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
    const { authorizationRequests } = context.switchToHttp().getRequest<GatewayRequest>();
    const read = status === 400 ? MALFORMED : undefined;
    throw new GatewayError(this.checks.withoutSecret(authorizationRequests[0]!, read).error);
  }
}
