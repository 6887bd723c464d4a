import { strictestRate } from '@latchkey/verifier';
import { Controller, Get, Header, Req, UseGuards } from '@nestjs/common';
import type { FastifyRequest } from 'fastify';
import { type Allowed, BearerGuard } from './bearer.guard.js';

/** Whom the gateway takes a caller for: the quickest way to see whether a token works and what it may do. */
@Controller('gateway/whoami')
export class WhoamiController {
  @Get()
  @UseGuards(BearerGuard)
  @Header('cache-control', 'no-store')
  whoami(@Req() req: FastifyRequest & { user?: Allowed }) {
    const { tokenId, kind, ownerType, ownerId, project, scopes, expiresAtMs, rates } = req.user!.principal;
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
