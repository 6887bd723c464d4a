import { Controller, Get, Header, HttpCode, Injectable, Req, Res, UseGuards } from '@nestjs/common';
import type { FastifyReply } from 'fastify';
import { Checks, type Inquiry } from '../check/index.js';
import { Delegated, identityHeaders, readConditions } from '../handlers/index.js';
import { BearerGuard } from './bearer.guard.js';
import { BearerStrategy } from './bearer.strategy.js';
import { Peers } from './peers.js';
import { GatewayError, type GatewayRequest } from './request.js';

const malformed = (detail: string) => new GatewayError({ code: 'invalid_request', detail });

/** Asks of the token what the proxy's configuration says, and the route of the request that it forwards. */
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

  protected override inquiriesOf({ head, raw }: GatewayRequest): readonly Inquiry[] {
    const query = new URL(raw.url ?? '/', 'http://gateway').searchParams;
    if (query.has('access_token'))
      throw malformed('A token must not stand in the query. Send it as "Authorization: Bearer".');
    const unknown = [...query.keys()].find((name) => name !== 'scope' && name !== 'project');
    if (unknown !== undefined)
      throw malformed(`The parameter "${unknown.slice(0, 50)}" is not known; scope and project are.`);
    const conditions = readConditions(query.getAll('scope'), query.getAll('project'));
    if ('refusal' in conditions) throw new GatewayError(conditions.refusal);
    const forwarded = this.peers.forwardedBy(raw);
    const { authorization, requestId, ip, userAgent } = head;
    const asking = this.delegated.asking({
      door: 'forward-auth',
      ...(forwarded !== undefined && forwarded !== 'unbelieved' && { forwarded }),
      ...conditions,
      authorization,
      requestId,
      ip,
      userAgent,
    });
    if ('refusal' in asking) throw new GatewayError(asking.refusal);
    return asking.inquiries;
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
    if (this.peers.forwardedBy(raw) === 'unbelieved') {
      // Passing it by in silence would turn every rule of the routes file into "any token will do".
      const detail = `X-Forwarded-Method and -Uri are believed from FORWARD_AUTH_PEERS alone, and ${this.peers.ipOf(raw)} is none.`;
      throw new GatewayError({ code: 'forbidden', detail });
    }
    reply.headers(identityHeaders(user, head.requestId));
  }
}
