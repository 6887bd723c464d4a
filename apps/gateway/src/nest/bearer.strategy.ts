import { newId } from '@latchkey/runtime';
import { Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { PassportStrategy } from '@nestjs/passport';
import passport from 'passport';
import { Strategy } from 'passport-http-bearer';
import { Checks, type Decision } from '../check/index.js';
import { GatewayError, type GatewayRequest } from './request.js';

export type Allowed = Extract<Decision, { allowed: true }>;

/** Passport's Bearer strategy: it reads the header; the decision is the one of all endpoints. */
@Injectable()
export class BearerStrategy extends PassportStrategy(Strategy, 'bearer') implements OnApplicationShutdown {
  /** Passport registers strategies by name per process; each gateway in it has its own. */
  readonly registeredAs = `bearer ${newId()}`;

  constructor(private readonly checks: Checks) {
    super({ passReqToCallback: true, realm: 'latchkey' });
    passport.use(this.registeredAs, this);
  }

  async validate({ authorizationRequests }: GatewayRequest, secret: string): Promise<Allowed> {
    const decision = await this.checks.verifyAll(authorizationRequests, secret);
    if (!decision.allowed) throw new GatewayError(decision.error);
    return decision;
  }

  /** Runs after the last request. */
  onApplicationShutdown(): void {
    passport.unuse(this.registeredAs);
  }
}
