import { strictestRate } from '@latchkey/verifier';
import { Controller, Get, Header, Injectable, Req, UseGuards } from '@nestjs/common';
import type { AuthorizationRequest } from '../check/index.js';
import { BearerGuard } from './bearer.guard.js';
import type { GatewayRequest } from './request.js';

/** Requires any valid token. */
@Injectable()
export class WhoamiGuard extends BearerGuard {
  protected override authorizationRequestsOf({ method, head }: GatewayRequest): readonly AuthorizationRequest[] {
    const { requestId, ip, userAgent, authorization } = head;
    return [{ route: 'whoami', method, requestId, ip, userAgent, authorization, scopes: [] }];
  }
}

/** The caller's principal: the quickest way to see whether a token works and what it can do. */
@Controller('gateway/whoami')
export class WhoamiController {
  @Get()
  @UseGuards(WhoamiGuard)
  @Header('cache-control', 'no-store')
  whoami(@Req() { user }: GatewayRequest) {
    const { tokenId, kind, ownerType, ownerId, project, scopes, expiresAtMs, rates } = user!.principal;
    return {
      tokenId,
      kind,
      owner: { type: ownerType, id: ownerId },
      project: project || null,
      scopes,
      expiresAt: expiresAtMs === 0 ? null : new Date(expiresAtMs).toISOString(),
      rateLimit: strictestRate(rates),
    };
  }
}
