import type { Policy, RotatedToken, RotateTokenBody } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { mint, startOf } from '@latchkey/token-format';
import { Inject, Injectable } from '@nestjs/common';
import { AuditService } from '../audit/index.js';
import { type Actor, actorId, ScopesService } from '../authorization/index.js';
import { CONFIG, type TokenServiceConfig } from '../config.js';
import { type Change, Database, type Statement, update } from '../database/index.js';
import { badField, conflict, forbidden } from '../http/index.js';
import { InvalidationService } from '../invalidation/index.js';
import { LocksService } from '../verification/index.js';
import { type FamilyRow, mustBeWithinFamilyRate, selectFamily } from './issue.rules.js';
import { SELECT_POLICY } from './policy.service.js';
import { RevocationsService } from './revocations.service.js';
import { AS_ISSUED, expiryOf, TokenEntity } from './token.entity.js';
import { type AncestorsRow, selectAncestors, selectToken } from './token.queries.js';
import { TokenReader } from './token.reader.js';
import { entryOf, TokenRepository } from './token.repository.js';
import {
  boundsOf,
  latestExpiry,
  mustBeAllowedSecret,
  mustBeWithin,
  mustMeetPolicy,
  requestedExpiry,
} from './token.rules.js';

/** Rotates tokens: issues a successor and lets the old token expire. */
@Injectable()
export class RotationsService {
  constructor(
    private readonly db: Database,
    private readonly locks: LocksService,
    private readonly tokens: TokenRepository,
    private readonly audit: AuditService,
    private readonly reader: TokenReader,
    private readonly revocations: RevocationsService,
    private readonly invalidations: InvalidationService,
    private readonly scopes: ScopesService,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
  ) {}

  /**
   * Issues a successor with the same rights. The old token expires at once or after the overlap, never later than its own
   * expiry; the successor has the same expiry unless a person chooses another. A token is rotated once. The result says
   * whether the change of the old token is effective.
   */
  async rotate(actor: Actor, id: string, body: RotateTokenBody, waitMs?: number): Promise<RotatedToken> {
    return this.#rotate(actor, id, body, waitMs, (change, reading) => this.tokens.lock(change, actor, id, ...reading));
  }

  /** Rotates the token that carries the request: any token may. */
  async rotateSelf(actor: Actor, id: string, body: RotateTokenBody, waitMs?: number): Promise<RotatedToken> {
    return this.#rotate(actor, id, body, waitMs, async (change, reading) => {
      const lock = { change: { tokens: [id] } };
      const { now, read } = await this.locks.lock(change, actor, lock, selectToken(id), ...reading);
      return { now, token: read[0]![0] as TokenEntity, read: read.slice(1) };
    });
  }

  async #rotate(
    actor: Actor,
    id: string,
    body: RotateTokenBody,
    waitMs: number | undefined,
    lock: (change: Change, reading: Statement[]) => Promise<{ now: Actor; token: TokenEntity; read: unknown[][] }>,
  ): Promise<RotatedToken> {
    const setsExpiry = body.expiresAt !== undefined || body.expiresInSeconds !== undefined;
    if (setsExpiry && actor.type === 'token')
      throw forbidden(
        'Only a person who is signed in may choose another expiry; leave expiresAt and expiresInSeconds out.',
      );
    const newTokenId = newId();
    const { secret, done } = await this.db.change(async (change) => {
      const family = actor.type === 'token' ? [selectFamily(actor.tokenId)] : [];
      const { now, token, read } = await lock(change, [SELECT_POLICY, ...family]);
      const [[policy], [familyRow] = []] = read as [[Policy], FamilyRow[]?];
      if (!(now.type === 'token' && now.tokenId === id)) mustBeAllowedSecret(now, this.scopes, token);
      mustBeRotatable(token);
      const familyId = mustBeWithinFamilyRate(familyRow);
      const createdAt = new Date();
      const requested = requestedExpiry(body, createdAt);
      const expiresAt = requested === undefined ? latestExpiry(policy, createdAt, token.expiresAt) : requested;
      mustMeetPolicy(policy, { createdAt, expiresAt, allowedIps: token.allowedIps });
      const secret = mint(token.kind, this.config.TOKEN_PREFIX);
      const bounds = { ...boundsOf(token), expiresAt };
      if (now.type === 'token' && now.tokenId !== id) mustBeWithin(now, bounds);
      await mustExpireWithAncestors(change, token.ancestors, expiresAt);
      // It has its predecessor's generation, in which that was seen valid, and is revoked with it.
      const successor = {
        ...token,
        ...AS_ISSUED,
        id: newTokenId,
        start: startOf(secret, this.config.TOKEN_PREFIX),
        createdByType: now.type,
        createdById: actorId(now),
        createdAt,
        expiresAt,
        rotatedFrom: id,
        rateBucket: token.rateBucket ?? id,
        familyId,
      };
      this.tokens.insert(change, successor, secret);
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
      const invalidated = { invalidationId: invalidation.id, receipt: null };
      change.write(update(TokenEntity, { id }, { rotatedTo: newTokenId, overlapEndsAt: soonest, ...invalidated }));
      return { secret, done: { invalidations: [invalidation], tokenIds: [id] } };
    });
    const effect = await this.revocations.awaitConfirmation(done.invalidations, done.tokenIds, waitMs);
    return { ...(await this.reader.read(newTokenId)), secret, ...effect };
  }
}

function mustBeRotatable(token: TokenEntity): void {
  if (token.revokedAt) throw conflict('The token is revoked. Issue a new one instead.');
  if (token.rotatedTo) throw conflict(`The token has been rotated already; its successor is ${token.rotatedTo}.`);
  const expiresAt = expiryOf(token);
  if (expiresAt && expiresAt <= new Date()) throw conflict('The token has expired. Issue a new one instead.');
  if (token.disabledAt) throw conflict('The token is disabled. Enable it first, or issue a new one.');
}

/** A successor has the same ancestors as the old token, so it expires no later than they do. */
async function mustExpireWithAncestors(change: Change, ancestors: string[], expiresAt: Date | null): Promise<void> {
  if (ancestors.length === 0) return;
  const [bound] = await change.read<AncestorsRow>(selectAncestors(ancestors));
  if (bound?.inactive)
    throw conflict('An ancestor of this token is revoked, expired or disabled, so it cannot be rotated.');
  if (bound?.expiresAt && (expiresAt === null || expiresAt > bound.expiresAt))
    throw badField(
      'expiresAt',
      `must not be after ${bound.expiresAt.toISOString()}, when an ancestor of the token expires`,
    );
}
