import { strictestRate } from '@latchkey/verifier';
import { Controller, Get, Header, Injectable, Req, UseGuards } from '@nestjs/common';
import type { Inquiry } from '../check/index.js';
import { BearerGuard } from './bearer.guard.js';
import type { GatewayRequest } from './request.js';

/** Any token in force will do. */
@Injectable()
export class WhoamiGuard extends BearerGuard {
  protected override inquiriesOf({ method, head }: GatewayRequest): readonly Inquiry[] {
    const { requestId, ip, userAgent, authorization } = head;
    return [{ route: 'whoami', method, requestId, ip, userAgent, authorization, scopes: [] }];
  }
}

/** Whom the gateway takes a caller for: the quickest way to see whether a token works and what it may do. */
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
