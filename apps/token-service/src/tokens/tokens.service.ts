import type {
  Effect,
  IssuedToken,
  IssueTokenBody,
  ListTokensQuery,
  PatchTokenBody,
  Policy,
  RevokedToken,
  RevokeTokenBody,
  RotatedToken,
  RotateTokenBody,
  Token,
  TokenEffect,
} from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { mint, startOf } from '@latchkey/token-format';
import { Inject, Injectable } from '@nestjs/common';
import { AuditService } from '../audit/index.js';
import { type Actor, ScopesService } from '../authorization/index.js';
import { CONFIG, type TokenServiceConfig } from '../config.js';
import { Database, update } from '../database/index.js';
import { ApiError, forbidden, notFound, type Page } from '../http/index.js';
import { InvalidationService } from '../invalidation/index.js';
import { LocksService } from '../verification/index.js';
import { AlsoChangedService } from './also-changed.service.js';
import { ClosuresService, type StartedExposure } from './closures.service.js';
import { type ExposureRow, selectExposureOf, selectTokenStates, type TokenStateRow } from './exposure.queries.js';
import { claimKey, lockForIssue, newToken } from './issue.rules.js';
import { patchOf } from './patch.rules.js';
import { SELECT_POLICY } from './policy.service.js';
import { type Revocation, RevocationsService } from './revocations.service.js';
import { RotationsService } from './rotations.service.js';
import { canonicalAddresses, requestedColumns, TokenEntity } from './token.entity.js';
import { markDescendants, selectTargets } from './token.queries.js';
import { TokenReader, tokenOfNew } from './token.reader.js';
import { issuedEntry, TokenRepository } from './token.repository.js';
import { mustSee } from './token.rules.js';

/** The result of issuing: a retry with the same Idempotency-Key returns the token issued before, without its secret. */
export type Issued = { replayed: false; token: IssuedToken } | { replayed: true; token: Token };

/** The operations on tokens: issue, change, rotate, revoke. */
@Injectable()
export class TokensService {
  constructor(
    private readonly db: Database,
    private readonly locks: LocksService,
    private readonly scopes: ScopesService,
    private readonly reader: TokenReader,
    private readonly tokens: TokenRepository,
    private readonly revocations: RevocationsService,
    private readonly rotations: RotationsService,
    private readonly closures: ClosuresService,
    private readonly alsoChanged: AlsoChangedService,
    private readonly invalidations: InvalidationService,
    private readonly audit: AuditService,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
  ) {}

  /**
   * Issues a token. A token that carries the request becomes its parent: the new token stays within the parent's bounds
   * and is revoked with it.
   * @param idempotencyKey makes retries safe: of several at once, one issues
   */
  async issue(actor: Actor, body: IssueTokenBody, idempotencyKey?: string): Promise<Issued> {
    const id = newId();
    const secret = mint(body.kind, this.config.TOKEN_PREFIX);
    const start = startOf(secret, this.config.TOKEN_PREFIX);
    const requested = { id, kind: body.kind, start, ...requestedColumns(body) };
    const issued = await this.db.change<{ earlier: string } | Token>(async (change) => {
      const context = await lockForIssue(this.locks, change, actor, body.projectId ?? null);
      const earlier = await claimKey(change, context.now, idempotencyKey, body, id);
      if (earlier !== null) return { earlier };
      const token = newToken(context, this.scopes, body, requested);
      this.tokens.insert(change, token, secret);
      this.audit.record(change, issuedEntry(context.now, token));
      return tokenOfNew(token, context.owner!.name, context.now.name);
    });
    if ('earlier' in issued) return { replayed: true, token: await this.reader.read(issued.earlier) };
    return { replayed: false, token: { ...issued, secret } };
  }

  list(actor: Actor, query: ListTokensQuery): Promise<Page<Token>> {
    return this.reader.list(actor, query);
  }

  /** @throws ApiError `not_found` when it does not exist or the caller may not see it */
  async get(actor: Actor, id: string): Promise<Token> {
    const token = await this.reader.read(id);
    const { type, id: ownerId } = token.owner;
    mustSee(actor, { ownerUserId: type === 'user' ? ownerId : null, projectId: type === 'project' ? ownerId : null });
    return token;
  }

  /** The token that carries the request. */
  async self(actor: Actor): Promise<Token> {
    return this.reader.read(callingToken(actor));
  }

  /** Changes a token. Scopes, addresses, rate limit and disabling take effect like a revocation; the rest affects no verifier. */
  async patch(actor: Actor, id: string, body: PatchTokenBody, waitMs: number | undefined): Promise<TokenEffect> {
    const allowedIps = body.allowedIps && canonicalAddresses(body.allowedIps);
    const written = await this.db.change(async (change) => {
      const { now, token, read } = await this.tokens.lock(change, actor, id, ...(allowedIps ? [SELECT_POLICY] : []));
      const requested = allowedIps && { allowedIps, policy: read[0]![0] as Policy };
      const patch = patchOf(now, this.scopes, token, body, requested);
      const { columns, turned, disabled, affectsChecks, entries } = patch;
      const invalidation = affectsChecks ? { id: newId(), kind: 'token' as const, subject: id, cut: disabled } : null;
      const written = this.invalidations.writeAll(change, invalidation ? [invalidation] : []);
      const invalidated = invalidation && { invalidationId: invalidation.id, receipt: null };
      change.write(update(TokenEntity, { id }, { ...columns, ...invalidated }));
      if (turned) change.write(markDescendants(id));
      this.audit.recordAll(change, entries);
      return written;
    });
    return this.#effectOn(id, this.revocations.awaitConfirmation(written, [id], waitMs));
  }

  /**
   * Revokes a token and its descendants; with reason `exposed` also every token whose secret it was shown. Safe to
   * repeat: it waits again and returns the current receipt.
   */
  async revoke(actor: Actor, id: string, body: RevokeTokenBody, waitMs: number | undefined): Promise<RevokedToken> {
    const { reason, comment } = body;
    if (reason === 'exposed') return this.#expose(actor, id, comment, waitMs);
    const done = await this.db.change(async (change) => {
      const { now, read } = await this.tokens.lock(change, actor, id, ...selectTargets([id]));
      return this.revocations.revokeTargets(change, now, read, { reason, comment });
    });
    return this.#revoked(id, done, waitMs);
  }

  /** Continues an exposure started earlier: none of its tokens has been shown a secret since. */
  async #expose(
    actor: Actor,
    id: string,
    comment: string | undefined,
    waitMs: number | undefined,
  ): Promise<RevokedToken> {
    const started = await this.db.change(async (change) => {
      const { now, read } = await this.tokens.lock(change, actor, id, selectTokenStates([id]), selectExposureOf(id));
      const [named, [known]] = read as [TokenStateRow[], ExposureRow[]];
      if (known) return { id: known.id, invalidations: [] };
      return this.closures.start(change, now, named, { comment });
    });
    const { ended, ...effect } = await this.closures.finish(started, waitMs);
    const alsoChanged = await this.alsoChanged.of(actor, started.id, id);
    return { ...(await this.#effectOn(id, effect)), ended, alsoChanged };
  }

  /** Revokes the token that carries the request: any token may. */
  async revokeSelf(actor: Actor, waitMs: number | undefined): Promise<RevokedToken> {
    const id = callingToken(actor);
    const done = await this.db.change(async (change) => {
      const { now } = await this.locks.lock(change, actor, { change: { tokens: [id] } });
      return this.revocations.revoke(change, now, [id], { reason: 'unspecified' });
    });
    return this.#revoked(id, done, waitMs);
  }

  /** Revokes every token of a person, for administrators. */
  async revokeAllOf(actor: Actor, userId: string, body: RevokeTokenBody, waitMs: number | undefined) {
    const { reason, comment } = body;
    const done = await this.db.change<StartedExposure | Revocation>(async (change) => {
      // The person is locked for change, so that no token of theirs is issued meanwhile.
      const { now } = await this.locks.lock(change, actor, { change: { users: [userId] } });
      if (!now.rights.holds('users:write')) throw forbidden('Only administrators may do this (users:write).');
      const [person] = await change.read(['SELECT 1 FROM users WHERE id = $1', [userId]]);
      if (!person) throw notFound('person');
      if (reason === 'exposed') return this.closures.startForOwner(change, now, userId, { comment });
      return this.revocations.revokeAllOf(change, now, userId, { reason, comment });
    });
    if ('id' in done) return this.closures.finish(done, waitMs);
    const effect = done.invalidations.length
      ? await this.revocations.awaitConfirmation(done.invalidations, done.tokenIds, waitMs)
      : await this.revocations.confirmUnchanged(waitMs);
    return { ...effect, ended: done.counts };
  }

  /**
   * Issues a successor with the same rights. The old token expires at once or after the overlap, never later than its own
   * expiry; the successor has the same expiry unless a person chooses another. A token is rotated once.
   */
  rotate(actor: Actor, id: string, body: RotateTokenBody, waitMs?: number): Promise<RotatedToken> {
    return this.rotations.rotate(actor, id, body, waitMs);
  }

  /** Rotates the token that carries the request: any token may. */
  rotateSelf(actor: Actor, body: RotateTokenBody, waitMs?: number): Promise<RotatedToken> {
    return this.rotations.rotateSelf(actor, callingToken(actor), body, waitMs);
  }

  /** All scopes, and which of them the caller may grant. */
  listScopes(actor: Actor) {
    return {
      items: this.scopes.declarations.map(({ name, description }) => ({
        name,
        description,
        grantable:
          actor.rights.holdsSomewhere(name) || (actor.type === 'token' && actor.snapshot.scopes.includes(name)),
      })),
    };
  }

  /** The change is committed, so the token is read while verifiers confirm. */
  async #effectOn(id: string, confirmed: Promise<Effect> | Effect): Promise<TokenEffect> {
    const [effect, token] = await Promise.all([confirmed, this.reader.read(id)]);
    return { ...effect, token: { ...token, receipt: effect.receipt ?? token.receipt } };
  }

  async #revoked(id: string, done: Revocation, waitMs: number | undefined): Promise<RevokedToken> {
    const effect = this.revocations.confirmRevoked(id, done, waitMs);
    return { ...(await this.#effectOn(id, effect)), ended: done.counts };
  }
}

function callingToken(actor: Actor): string {
  if (actor.type === 'token') return actor.tokenId;
  throw new ApiError(
    'invalid_request',
    'No token carries this request: send one as `Authorization: Bearer`, without signing in.',
  );
}
