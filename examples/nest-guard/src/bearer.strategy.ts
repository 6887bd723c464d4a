import type { VerifyResponse } from '@latchkey/contracts';
import { Injectable } from '@nestjs/common';
import { PassportStrategy } from '@nestjs/passport';
import type { FastifyRequest } from 'fastify';
import { Strategy } from 'passport-http-bearer';
import { Latchkey } from './latchkey.js';

/** What a route needs of a token. */
export interface Needs {
  scopes: string[];
  /** A project id, or empty when the request is not about a project. */
  project: string;
}

/** What the strategy reads of a request, and what it is given besides. */
interface Presented {
  headers: { authorization: string | undefined };
  needs: Needs;
  ip: string;
  route: string;
  userAgent: string;
}

/** Takes the token from the Authorization header and has Latchkey decide. */
@Injectable()
export class BearerStrategy extends PassportStrategy(Strategy, 'latchkey', 3) {
  constructor(private readonly latchkey: Latchkey) {
    super({ passReqToCallback: true });
  }

  /** Shows the stock strategy the header alone: it would also take a token from the body or the query string. */
  override authenticate(request: unknown, { needs }: { needs: Needs }): void {
    const { headers, ip, routeOptions } = request as FastifyRequest;
    const presented: Presented = {
      headers: { authorization: headers.authorization },
      needs,
      ip,
      route: `nest-guard ${routeOptions.url ?? ''}`,
      userAgent: headers['user-agent'] ?? '',
    };
    super.authenticate(presented as never);
  }

  /** Latchkey's response, allowed or denied; the guard maps it to HTTP. `unavailable` when there was none. */
  async validate(presented: Presented, token: string): Promise<VerifyResponse | 'unavailable'> {
    const { needs, ip, route, userAgent } = presented;
    return (await this.latchkey.verify({ token, ...needs, ip, route, userAgent })) ?? 'unavailable';
  }
}
