import { newId } from '@latchkey/runtime';
import { Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { PassportStrategy } from '@nestjs/passport';
import passport from 'passport';
import { Strategy } from 'passport-http-bearer';
import { Checks, type Decision } from '../check/index.js';
import { GatewayError, type GatewayRequest } from './request.js';

export type Allowed = Extract<Decision, { allowed: true }>;

/** Passport's Bearer strategy: it reads the header, and the decision is the one that all doors share. */
@Injectable()
export class BearerStrategy extends PassportStrategy(Strategy, 'bearer') implements OnApplicationShutdown {
  /** Passport knows strategies by name, for the whole process; each gateway in it has its own. */
  readonly registeredAs = `bearer ${newId()}`;

  constructor(private readonly checks: Checks) {
    super({ passReqToCallback: true, realm: 'latchkey' });
    passport.use(this.registeredAs, this);
  }

  async validate({ inquiries }: GatewayRequest, secret: string): Promise<Allowed> {
    const decision = await this.checks.verifyAll(inquiries, secret);
    if (!decision.allowed) throw new GatewayError(decision.refusal);
    return decision;
  }

  /** After the last request has been answered. */
  onApplicationShutdown(): void {
    passport.unuse(this.registeredAs);
  }
}
