import { codeForDenial } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { PassportStrategy } from '@nestjs/passport';
import passport from 'passport';
import { Strategy } from 'passport-http-bearer';
import { rightsOfToken, type TokenActor } from '../authorization/index.js';
import { ApiError, type LatchkeyRequest, restored, tooMany } from '../http/index.js';
import { MANAGEMENT_ROUTE } from '../usage/index.js';
import { VerificationService } from '../verification/index.js';

/**
 * Reads `Authorization: Bearer` (RFC 6750 section 2.1) and verifies the token. The library also reads the query and the
 * body: the guard refuses those before.
 */
@Injectable()
export class BearerStrategy extends PassportStrategy(Strategy, 'bearer') implements OnApplicationShutdown {
  /** Passport registers strategies by name, for the whole process; each token-service in it has its own. */
  readonly registeredAs = `bearer ${newId()}`;

  constructor(private readonly verification: VerificationService) {
    super({ realm: 'latchkey', passReqToCallback: true });
    passport.use(this.registeredAs, this);
  }

  /** @throws ApiError when the token is not allowed */
  async validate(request: LatchkeyRequest, secret: string): Promise<TokenActor> {
    const { ip, userAgent } = request.latchkey;
    const where = { route: MANAGEMENT_ROUTE, ip, userAgent };
    const verification = await this.verification.use(secret, { scopes: [], ...(ip !== null && { ip }) }, where);
    if (verification.allowed) {
      const { snapshot, name } = verification.known;
      const userId = snapshot.ownerType === 'user' ? snapshot.ownerId : null;
      return {
        type: 'token',
        tokenId: snapshot.id,
        name,
        userId,
        projectId: snapshot.project || null,
        rights: rightsOfToken(snapshot),
        snapshot,
      };
    }
    const { reason, tokenId, rate } = verification;
    const denial = { reason, tokenId };
    if (rate) throw tooMany(rate, denial);
    if (reason === 'restored') throw restored(denial);
    const code = codeForDenial(reason);
    const detail =
      code === 'address_not_allowed'
        ? 'The token may not be used from this address.'
        : 'The token is not accepted. An administrator or its owner can look up why by the requestId.';
    throw new ApiError(code, detail, { bearer: true, denial });
  }

  /** After the last response has been sent. */
  onApplicationShutdown(): void {
    passport.unuse(this.registeredAs);
  }
}
