import type { Effect, introspectionSchema } from '@latchkey/contracts';
import { hashSecret, parse } from '@latchkey/token-format';
import { Inject, Injectable } from '@nestjs/common';
import type { z } from 'zod';
import type { Actor } from '../authorization/index.js';
import { CONFIG, type TokenServiceConfig } from '../config.js';
import { Database } from '../database/index.js';
import { forbidden, lacksScope, requestContext, restored, unavailable } from '../http/index.js';
import { RevocationsService, TokenReader } from '../tokens/index.js';
import { UsageService } from '../usage/index.js';
import { LocksService, SnapshotService, VerificationService } from '../verification/index.js';

const SCOPE = 'tokens:verify';

/** Introspection (RFC 7662) and revocation (RFC 7009) of a token whose secret the caller presents. */
@Injectable()
export class OAuthService {
  constructor(
    private readonly db: Database,
    private readonly locks: LocksService,
    private readonly snapshots: SnapshotService,
    private readonly reader: TokenReader,
    private readonly revocations: RevocationsService,
    private readonly verification: VerificationService,
    private readonly usage: UsageService,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
  ) {}

  /**
   * RFC 7662 section 2.2: the response for an inactive token contains nothing else.
   * @throws ApiError `restored` while a restore leaves open whether the token is active
   */
  async introspect(actor: Actor, secret: string): Promise<z.output<typeof introspectionSchema>> {
    mustHold(actor);
    const verification = await this.verification.verify(secret, { scopes: [] });
    this.usage.count(verification, { route: 'introspection', ip: requestContext.getStore()?.ip, userAgent: '' });
    if (!verification.allowed) {
      // It can be either: `active: false` would be taken for the end of the token.
      if (verification.reason === 'restored') throw restored();
      return { active: false };
    }
    const { snapshot } = verification.known;
    const token = await this.reader.read(snapshot.id);
    return {
      active: true,
      scope: snapshot.scopes.join(' '),
      client_id: `${snapshot.ownerType}:${snapshot.ownerId}`,
      username: token.owner.name,
      token_type: 'Bearer',
      ...(snapshot.expiresAtMs && { exp: Math.floor(snapshot.expiresAtMs / 1000) }),
      iat: Math.floor(Date.parse(token.createdAt) / 1000),
      sub: `${snapshot.ownerType}:${snapshot.ownerId}`,
      iss: this.config.PUBLIC_URL,
      jti: snapshot.id,
    };
  }

  /**
   * RFC 7009 section 2.2: returns the same whether or not there was a token to revoke. The revocation is effective when this
   * returns.
   * @throws ApiError `unavailable` (2.2.1) when the token is revoked but a verifier has not confirmed yet: a repeat waits
   *   again
   */
  async revoke(actor: Actor, secret: string): Promise<void> {
    mustHold(actor);
    if (!parse(secret, this.config.TOKEN_PREFIX).ok) return;
    const {
      ids: [id],
      missing,
    } = await this.snapshots.idsByHashes([hashSecret(secret)]);
    if (missing) throw missing;
    // A restored database can lack a token that verifiers still have in memory.
    if (id === undefined) return mustBeEffective(await this.revocations.confirmUnchanged(undefined));
    const revocation = await this.db.change(async (change) => {
      const { now } = await this.locks.lock(change, actor, { change: { tokens: [id] } });
      mustHold(now);
      return this.revocations.revoke(change, now, [id], { reason: 'unspecified' });
    });
    mustBeEffective(await this.revocations.confirmRevoked(id, revocation, undefined));
  }
}

function mustBeEffective({ effective }: Effect): void {
  if (!effective)
    throw unavailable('The token is revoked, but not every verifier has confirmed it yet. Send this request again.');
}

function mustHold(actor: Actor): void {
  if (actor.rights.holds(SCOPE)) return;
  if (actor.type === 'token') throw lacksScope([SCOPE]);
  throw forbidden(`Only administrators, and tokens that hold ${SCOPE}, may do this.`);
}
