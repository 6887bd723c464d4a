import type { RotatedToken, RotateTokenBody } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { mint } from '@latchkey/token-format';
import { Inject, Injectable } from '@nestjs/common';
import { AuditService } from '../audit/index.js';
import { type Actor, ScopesService } from '../authorization/index.js';
import { CONFIG, type TokenServiceConfig } from '../config.js';
import { type Change, Database, update } from '../database/index.js';
import { badField, conflict, forbidden } from '../http/index.js';
import { InvalidationService } from '../invalidation/index.js';
import { LocksService } from '../verification/index.js';
import { familyOf } from './families.js';
import { PolicyService } from './policy.service.js';
import { RecordsService } from './records.service.js';
import { RevocationsService } from './revocations.service.js';
import { endOf, selectToken, TokenEntity } from './token.entity.js';
import { actorId, entryOf, TokenRepository } from './token.repository.js';
import { boundsOf, chosenEnd, mustBeShownItsSecret, mustBeWithin, rateOf } from './token.rules.js';

/** Rotation: a successor takes a token's place. */
@Injectable()
export class RotationsService {
  constructor(
    private readonly db: Database,
    private readonly locks: LocksService,
    private readonly tokens: TokenRepository,
    private readonly audit: AuditService,
    private readonly records: RecordsService,
    private readonly revocations: RevocationsService,
    private readonly invalidations: InvalidationService,
    private readonly scopes: ScopesService,
    private readonly policy: PolicyService,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
  ) {}

  /**
   * Issues a successor with the same rights. The old token ends at once, or after the overlap, never later than its own
   * end; the successor keeps the old end unless a person says otherwise. A token is rotated once. The result says how
   * far the old token's end is effective.
   */
  async rotate(actor: Actor, id: string, body: RotateTokenBody, waitMs?: number): Promise<RotatedToken> {
    return this.#rotate(actor, id, body, waitMs, (change) => this.tokens.lock(change, actor, id));
  }

  /** Rotates the token that carries the request: any token may. */
  async rotateSelf(actor: Actor, id: string, body: RotateTokenBody, waitMs?: number): Promise<RotatedToken> {
    return this.#rotate(actor, id, body, waitMs, async (change) => {
      const lock = { change: { tokens: [id] } };
      const { now, read } = await this.locks.lock(change, actor, lock, selectToken(id));
      return { now, token: read[0]![0] as TokenEntity };
    });
  }

  async #rotate(
    actor: Actor,
    id: string,
    body: RotateTokenBody,
    waitMs: number | undefined,
    lock: (change: Change) => Promise<{ now: Actor; token: TokenEntity }>,
  ): Promise<RotatedToken> {
    const namesEnd = body.expiresAt !== undefined || body.expiresInSeconds !== undefined;
    if (namesEnd && actor.type === 'token')
      throw forbidden(
        'Only a person who is signed in may choose another end; leave expiresAt and expiresInSeconds out.',
      );
    const newTokenId = newId();
    const { secret, done } = await this.db.change(async (change) => {
      const { now, token } = await lock(change);
      if (!(now.type === 'token' && now.tokenId === id)) mustBeShownItsSecret(now, this.scopes, token);
      mustBeRotatable(token);
      const familyId = await familyOf(change, now);
      const createdAt = new Date();
      const end = chosenEnd(body, createdAt);
      const expiresAt = end === undefined ? await this.policy.latestEnd(change, createdAt, token.expiresAt) : end;
      await this.policy.mustMeet(change, { createdAt, end: expiresAt, allowedIps: token.allowedIps });
      const secret = mint(token.kind, this.config.TOKEN_PREFIX);
      const bounds = { ...boundsOf(token), end: expiresAt };
      if (now.type === 'token' && now.tokenId !== id) mustBeWithin(now, bounds);
      await mustEndWithAncestors(change, token.ancestors, expiresAt);
      this.tokens.insert(change, {
        ...token,
        rateLimit: rateOf(token),
        id: newTokenId,
        createdByType: now.type,
        createdById: actorId(now),
        createdAt,
        expiresAt,
        rotatedFrom: id,
        rateBucket: token.rateBucket ?? id,
        familyId,
        // It was seen to live with its predecessor, and is revoked with it.
        generation: token.generation,
        secret,
      });
      const overlapEndsAt = new Date(createdAt.getTime() + body.overlapSeconds * 1000);
      const details = { rotatedTo: newTokenId, overlapSeconds: body.overlapSeconds };
      const issued = { rotatedFrom: id, scopes: token.scopes, expiresAt: expiresAt?.toISOString() ?? null };
      this.audit.recordAll(change, [
        entryOf(now, 'token.rotated', token, details),
        entryOf(now, 'token.issued', { ...token, id: newTokenId }, issued),
      ]);
      if (body.overlapSeconds === 0) {
        change.write(update(TokenEntity, { id }, { rotatedTo: newTokenId }));
        return { secret, done: await this.revocations.revoke(change, now, [id], { reason: 'superseded' }) };
      }
      const invalidation = this.invalidations.write(change, { kind: 'token', subject: id, cut: false });
      const soonest = token.expiresAt && token.expiresAt < overlapEndsAt ? token.expiresAt : overlapEndsAt;
      const told = { invalidationId: invalidation.id, receipt: null };
      change.write(update(TokenEntity, { id }, { rotatedTo: newTokenId, overlapEndsAt: soonest, ...told }));
      return { secret, done: { invalidations: [invalidation], tokenIds: [id] } };
    });
    const effect = await this.revocations.settle(done.invalidations, done.tokenIds, waitMs);
    return { ...(await this.records.read(newTokenId)), secret, ...effect };
  }
}

function mustBeRotatable(token: TokenEntity): void {
  if (token.revokedAt) throw conflict('The token is revoked. Issue a new one instead.');
  if (token.rotatedTo) throw conflict(`The token has been rotated already; its successor is ${token.rotatedTo}.`);
  const end = endOf(token);
  if (end && end <= new Date()) throw conflict('The token has expired. Issue a new one instead.');
  if (token.disabledAt) throw conflict('The token is disabled. Enable it first, or issue a new one.');
}

/** A successor takes the old one's place among what was made with its ancestors, so it lives no longer than they. */
async function mustEndWithAncestors(change: Change, ancestors: string[], end: Date | null): Promise<void> {
  if (ancestors.length === 0) return;
  const [bound] = await change.read<{ latest: Date | null; dead: boolean }>([
    `SELECT min(ends_at) AS latest, bool_or(revoked_at IS NOT NULL OR disabled_at IS NOT NULL OR COALESCE(ends_at <= now(), false)) AS dead
     FROM tokens WHERE id = ANY ($1)`,
    [ancestors],
  ]);
  if (bound?.dead)
    throw conflict('The token that this one was made with has ended or is disabled, so nothing takes its place.');
  if (bound?.latest && (end === null || end > bound.latest))
    throw badField(
      'expiresAt',
      `must not be after ${bound.latest.toISOString()}, when the token that it was made with ends`,
    );
}
