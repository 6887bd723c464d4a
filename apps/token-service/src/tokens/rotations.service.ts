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
import { type FamilyRow, mustGrowSlowly, selectFamily } from './issue.rules.js';
import { SELECT_POLICY } from './policy.service.js';
import { RecordsService } from './records.service.js';
import { RevocationsService } from './revocations.service.js';
import { AS_ISSUED, endOf, TokenEntity } from './token.entity.js';
import { type AncestorsRow, selectAncestors, selectToken } from './token.queries.js';
import { entryOf, TokenRepository } from './token.repository.js';
import { boundsOf, chosenEnd, latestEnd, mustBeShownItsSecret, mustBeWithin, mustMeetPolicy } from './token.rules.js';

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
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
  ) {}

  /**
   * Issues a successor with the same rights. The old token ends at once, or after the overlap, never later than its own
   * end; the successor keeps the old end unless a person says otherwise. A token is rotated once. The result says how
   * far the old token's end is effective.
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
    const namesEnd = body.expiresAt !== undefined || body.expiresInSeconds !== undefined;
    if (namesEnd && actor.type === 'token')
      throw forbidden(
        'Only a person who is signed in may choose another end; leave expiresAt and expiresInSeconds out.',
      );
    const newTokenId = newId();
    const { secret, done } = await this.db.change(async (change) => {
      const family = actor.type === 'token' ? [selectFamily(actor.tokenId)] : [];
      const { now, token, read } = await lock(change, [SELECT_POLICY, ...family]);
      const [[policy], [grown] = []] = read as [[Policy], FamilyRow[]?];
      if (!(now.type === 'token' && now.tokenId === id)) mustBeShownItsSecret(now, this.scopes, token);
      mustBeRotatable(token);
      const familyId = mustGrowSlowly(grown);
      const createdAt = new Date();
      const end = chosenEnd(body, createdAt);
      const expiresAt = end === undefined ? latestEnd(policy, createdAt, token.expiresAt) : end;
      mustMeetPolicy(policy, { createdAt, end: expiresAt, allowedIps: token.allowedIps });
      const secret = mint(token.kind, this.config.TOKEN_PREFIX);
      const bounds = { ...boundsOf(token), end: expiresAt };
      if (now.type === 'token' && now.tokenId !== id) mustBeWithin(now, bounds);
      await mustEndWithAncestors(change, token.ancestors, expiresAt);
      // Of its predecessor's generation: it was seen to live with that, and is revoked with it.
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
  const [bound] = await change.read<AncestorsRow>(selectAncestors(ancestors));
  if (bound?.dead)
    throw conflict('The token that this one was made with has ended or is disabled, so nothing takes its place.');
  if (bound?.latest && (end === null || end > bound.latest))
    throw badField(
      'expiresAt',
      `must not be after ${bound.latest.toISOString()}, when the token that it was made with ends`,
    );
}
