import { Injectable } from '@nestjs/common';
import { PassportStrategy } from '@nestjs/passport';
import { Strategy } from 'passport-http-bearer';
import type { Actor } from '../authorization/index.js';

/** What the strategy is shown of a request: the header alone, and how to find out whose token it is. */
export interface BearerRequest {
  headers: { authorization: string | undefined };
  verify(secret: string): Promise<Actor>;
}

/**
 * Reads `Authorization: Bearer` (RFC 6750 section 2.1). Passport keeps strategies for the whole process, so this one
 * holds nothing: the request brings the verification along.
 */
@Injectable()
export class BearerStrategy extends PassportStrategy(Strategy, 'bearer') {
  constructor() {
    super({ realm: 'latchkey', passReqToCallback: true });
  }

  validate(request: BearerRequest, secret: string): Promise<Actor> {
    return request.verify(secret);
  }
}
