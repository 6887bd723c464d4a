import { Controller, Get, Header, HttpCode, Injectable, Req, Res, UseGuards } from '@nestjs/common';
import type { FastifyReply } from 'fastify';
import { type AuthorizationRequest, Checks } from '../check/index.js';
import { Delegated, identityHeaders, readRequirement } from '../handlers/index.js';
import { BearerGuard } from './bearer.guard.js';
import { BearerStrategy } from './bearer.strategy.js';
import { Peers } from './peers.js';
import { GatewayError, type GatewayRequest } from './request.js';

const malformed = (detail: string) => new GatewayError({ code: 'invalid_request', detail });

/** Requires what the proxy's configuration and the route of the forwarded request require. */
@Injectable()
export class ForwardAuthGuard extends BearerGuard {
  constructor(
    strategy: BearerStrategy,
    checks: Checks,
    private readonly delegated: Delegated,
    private readonly peers: Peers,
  ) {
    super(strategy, checks);
  }

  protected override authorizationRequestsOf({ head, raw }: GatewayRequest): readonly AuthorizationRequest[] {
    const query = new URL(raw.url ?? '/', 'http://gateway').searchParams;
    if (query.has('access_token'))
      throw malformed('A token must not be sent in the query. Send it as "Authorization: Bearer".');
    const unknown = [...query.keys()].find((name) => name !== 'scope' && name !== 'project');
    if (unknown !== undefined)
      throw malformed(`The parameter "${unknown.slice(0, 50)}" is unknown; use scope and project.`);
    const requirement = readRequirement(query.getAll('scope'), query.getAll('project'));
    if ('error' in requirement) throw new GatewayError(requirement.error);
    const forwarded = this.peers.forwardedRequest(raw);
    const { authorization, requestId, ip, userAgent } = head;
    const plan = this.delegated.plan({
      endpoint: 'forward-auth',
      ...(forwarded !== undefined && forwarded !== 'untrusted' && { forwarded }),
      ...requirement,
      authorization,
      requestId,
      ip,
      userAgent,
    });
    if ('error' in plan) throw new GatewayError(plan.error);
    return plan.requests;
  }
}

/** `GET /forward-auth` for nginx auth_request, Caddy forward_auth and Traefik ForwardAuth. */
@Controller('forward-auth')
export class ForwardAuthController {
  constructor(private readonly peers: Peers) {}

  @Get()
  @UseGuards(ForwardAuthGuard)
  @HttpCode(204)
  @Header('cache-control', 'no-store')
  check(@Req() { raw, head, user }: GatewayRequest, @Res({ passthrough: true }) reply: FastifyReply): void {
    if (this.peers.forwardedRequest(raw) === 'untrusted') {
      // Ignoring the headers would reduce every rule of the routes file to "any valid token".
      const detail = `${this.peers.ipOf(raw)} is not in FORWARD_AUTH_PEERS, so its X-Forwarded-Method and -Uri are not trusted; add it, or drop the headers.`;
      throw new GatewayError({ code: 'forbidden', detail });
    }
    reply.headers(identityHeaders(user, head.requestId));
  }
}
