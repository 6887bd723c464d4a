import { codeForDenial, denialReasonSchema, ERRORS, type VerifyResponse } from '@latchkey/contracts';
import { createParamDecorator, type ExecutionContext, Injectable, SetMetadata } from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import { AuthGuard } from '@nestjs/passport';
import type { FastifyRequest } from 'fastify';
import { ApiError } from './api-error.js';
import type { Needs } from './bearer.strategy.js';

const PUBLIC = 'latchkey:public';
const NEEDS = 'latchkey:needs';
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Who acts in this request. */
export type Principal = Pick<VerifyResponse, 'tokenId' | 'owner' | 'project' | 'scopes' | 'expiresAt'>;

/** Opens a route to everyone. */
export const Public = () => SetMetadata(PUBLIC, true);

/**
 * What a route needs besides a token: all of these scopes, and, when `project` names a path parameter, that the token
 * reaches that project. A route without it takes any token that is in force.
 */
export const Requires = (needs: { scopes?: string[]; project?: string }) => SetMetadata(NEEDS, needs);

/** The principal, as a parameter of a guarded route. */
export const Caller = createParamDecorator((_: unknown, context: ExecutionContext): Principal => {
  return context.switchToHttp().getRequest<{ user: Principal }>().user;
});

/** Denies by default: every route needs a token that Latchkey accepts, unless it is `@Public()`. */
@Injectable()
export class BearerGuard extends AuthGuard('latchkey') {
  constructor(private readonly reflector: Reflector) {
    super();
  }

  override async canActivate(context: ExecutionContext): Promise<boolean> {
    if (this.reflector.getAllAndOverride<boolean>(PUBLIC, [context.getHandler(), context.getClass()])) return true;
    this.refuseOtherPlaces(context.switchToHttp().getRequest<FastifyRequest>());
    return (await super.canActivate(context)) as boolean;
  }

  /** Handed to the strategy, which sends it along with the token. */
  override getAuthenticateOptions(context: ExecutionContext): { session: false; needs: Needs } {
    return { session: false, needs: this.needs(context) };
  }

  /**
   * Maps Latchkey's response. The stock guard would return 401 without `WWW-Authenticate` for all of it, the 400 of a
   * malformed header included.
   */
  override handleRequest<T = Principal>(
    error: unknown,
    response: VerifyResponse | 'unavailable' | false,
    _info: unknown,
    context: ExecutionContext,
    status?: number,
  ): T {
    if (error) throw error;
    if (!response) {
      throw status === 400
        ? new ApiError('invalid_request', 'The Authorization header is malformed; send `Bearer <token>`.')
        : new ApiError('unauthenticated', 'This needs a token; send `Authorization: Bearer <token>`.');
    }
    if (response === 'unavailable')
      throw new ApiError('unavailable', 'The token cannot be checked just now; try again.');
    if (!response.allowed) {
      const code = codeForDenial(denialReasonSchema.catch('unavailable').parse(response.denial));
      const detail = code === 'restored' ? ERRORS.restored.meaning : 'The token does not allow this.';
      throw new ApiError(code, detail, this.needs(context).scopes);
    }
    const { tokenId, owner, project, scopes, expiresAt } = response;
    return { tokenId, owner, project, scopes, expiresAt } as T;
  }

  private needs(context: ExecutionContext): Needs {
    const asked = this.reflector.getAllAndOverride<{ scopes?: string[]; project?: string } | undefined>(NEEDS, [
      context.getHandler(),
      context.getClass(),
    ]);
    const parameters = context.switchToHttp().getRequest<{ params: Record<string, string> }>().params;
    const project = asked?.project ? (parameters[asked.project] ?? '') : '';
    if (asked?.project && !UUID.test(project)) {
      throw new ApiError('invalid_request', `${asked.project} in the path must be a project id, which is a UUID.`);
    }
    return { scopes: asked?.scopes ?? [], project };
  }

  /** RFC 6750 section 2: one token, in the header. In a URL it would end up in logs and histories. */
  private refuseOtherPlaces({ query, body, headers, raw }: FastifyRequest): void {
    const form = headers['content-type']?.startsWith('application/x-www-form-urlencoded');
    const inQuery = Object.hasOwn((query ?? {}) as object, 'access_token');
    const inForm = form && Object.hasOwn((body ?? {}) as object, 'access_token');
    const given = raw.rawHeaders.filter((name, i) => i % 2 === 0 && name.toLowerCase() === 'authorization').length;
    if (inQuery || inForm || given > 1) {
      throw new ApiError('invalid_request', 'Send one token, in the Authorization header and nowhere else.');
    }
  }
}
