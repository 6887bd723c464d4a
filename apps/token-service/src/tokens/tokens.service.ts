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
import { AftermathService } from './aftermath.service.js';
import { type Begun, ClosuresService } from './closures.service.js';
import { type ExposureRow, type StandingRow, selectExposureOf, selectStanding } from './exposure.queries.js';
import { claimKey, lockForIssue, newToken } from './issue.rules.js';
import { patchOf } from './patch.rules.js';
import { SELECT_POLICY } from './policy.service.js';
import { RecordsService, recordOfNew } from './records.service.js';
import { type Ended, RevocationsService } from './revocations.service.js';
import { RotationsService } from './rotations.service.js';
import { askedColumns, canonicalAddresses, TokenEntity } from './token.entity.js';
import { markBelow, selectEnding } from './token.queries.js';
import { issuedEntry, TokenRepository } from './token.repository.js';
import { mustSee } from './token.rules.js';

/** What issuing answers: a retry with the same Idempotency-Key finds the token made, and never its secret. */
export type Issued = { replayed: false; token: IssuedToken } | { replayed: true; token: Token };

/** Everything that may happen to a token: issue, change, rotate, revoke. */
@Injectable()
export class TokensService {
  constructor(
    private readonly db: Database,
    private readonly locks: LocksService,
    private readonly scopes: ScopesService,
    private readonly records: RecordsService,
    private readonly tokens: TokenRepository,
    private readonly revocations: RevocationsService,
    private readonly rotations: RotationsService,
    private readonly closures: ClosuresService,
    private readonly aftermath: AftermathService,
    private readonly invalidations: InvalidationService,
    private readonly audit: AuditService,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
  ) {}

  /**
   * Issues a token. A token that carries the request becomes its parent: it stays within the parent's bounds and dies
   * with it.
   * @param idempotencyKey makes a retry harmless: of several at once, one issues
   */
  async issue(actor: Actor, body: IssueTokenBody, idempotencyKey?: string): Promise<Issued> {
    const id = newId();
    const secret = mint(body.kind, this.config.TOKEN_PREFIX);
    const start = startOf(secret, this.config.TOKEN_PREFIX);
    const asked = { id, kind: body.kind, start, ...askedColumns(body) };
    const issued = await this.db.change<{ earlier: string } | Token>(async (change) => {
      const context = await lockForIssue(this.locks, change, actor, body.projectId ?? null);
      const earlier = await claimKey(change, context.now, idempotencyKey, body, id);
      if (earlier !== null) return { earlier };
      const token = newToken(context, this.scopes, body, asked);
      this.tokens.insert(change, token, secret);
      this.audit.record(change, issuedEntry(context.now, token));
      return recordOfNew(token, context.owner!.name, context.now.name);
    });
    if ('earlier' in issued) return { replayed: true, token: await this.records.read(issued.earlier) };
    return { replayed: false, token: { ...issued, secret } };
  }

  list(actor: Actor, query: ListTokensQuery): Promise<Page<Token>> {
    return this.records.list(actor, query);
  }

  /** @throws ApiError `not_found` when it is not there or the caller may not see it */
  async get(actor: Actor, id: string): Promise<Token> {
    const token = await this.records.read(id);
    const { type, id: ownerId } = token.owner;
    mustSee(actor, { ownerUserId: type === 'user' ? ownerId : null, projectId: type === 'project' ? ownerId : null });
    return token;
  }

  /** The token that carries the request. */
  async self(actor: Actor): Promise<Token> {
    return this.records.read(carrying(actor));
  }

  /** Changes a token. Scopes, addresses, rate and disabling take effect like a revocation; the rest touches no verifier. */
  async patch(actor: Actor, id: string, body: PatchTokenBody, waitMs: number | undefined): Promise<TokenEffect> {
    const allowedIps = body.allowedIps && canonicalAddresses(body.allowedIps);
    const written = await this.db.change(async (change) => {
      const { now, token, read } = await this.tokens.lock(change, actor, id, ...(allowedIps ? [SELECT_POLICY] : []));
      const asked = allowedIps && { allowedIps, policy: read[0]![0] as Policy };
      const { columns, turned, disabled, touchesChecks, entries } = patchOf(now, this.scopes, token, body, asked);
      const invalidation = touchesChecks ? { id: newId(), kind: 'token' as const, subject: id, cut: disabled } : null;
      const written = this.invalidations.writeAll(change, invalidation ? [invalidation] : []);
      const told = invalidation && { invalidationId: invalidation.id, receipt: null };
      change.write(update(TokenEntity, { id }, { ...columns, ...told }));
      if (turned) change.write(markBelow(id));
      this.audit.recordAll(change, entries);
      return written;
    });
    return this.#effectOn(id, this.revocations.settle(written, [id], waitMs));
  }

  /**
   * Revokes a token and all that was made with it; as `exposed` all that it was shown too. Repeating it is harmless: it
   * waits again and answers with the receipt as it stands.
   */
  async revoke(actor: Actor, id: string, body: RevokeTokenBody, waitMs: number | undefined): Promise<RevokedToken> {
    const { reason, comment } = body;
    if (reason === 'exposed') return this.#expose(actor, id, comment, waitMs);
    const done = await this.db.change(async (change) => {
      const { now, read } = await this.tokens.lock(change, actor, id, ...selectEnding([id]));
      return this.revocations.end(change, now, read, { reason, comment });
    });
    return this.#revoked(id, done, waitMs);
  }

  /** One that was begun before is gone on with: nothing has been shown to any of its tokens since. */
  async #expose(
    actor: Actor,
    id: string,
    comment: string | undefined,
    waitMs: number | undefined,
  ): Promise<RevokedToken> {
    const begun = await this.db.change(async (change) => {
      const { now, read } = await this.tokens.lock(change, actor, id, selectStanding([id]), selectExposureOf(id));
      const [named, [known]] = read as [StandingRow[], ExposureRow[]];
      if (known) return { id: known.id, invalidations: [] };
      return this.closures.begin(change, now, named, { comment });
    });
    const { ended, ...effect } = await this.closures.finish(begun, waitMs);
    const alsoChanged = await this.aftermath.of(actor, begun.id, id);
    return { ...(await this.#effectOn(id, effect)), ended, alsoChanged };
  }

  /** Revokes the token that carries the request: any token may. */
  async revokeSelf(actor: Actor, waitMs: number | undefined): Promise<RevokedToken> {
    const id = carrying(actor);
    const done = await this.db.change(async (change) => {
      const { now } = await this.locks.lock(change, actor, { change: { tokens: [id] } });
      return this.revocations.revoke(change, now, [id], { reason: 'unspecified' });
    });
    return this.#revoked(id, done, waitMs);
  }

  /** Revokes every token of a person, for administrators. */
  async revokeAllOf(actor: Actor, userId: string, body: RevokeTokenBody, waitMs: number | undefined) {
    const { reason, comment } = body;
    const done = await this.db.change<Begun | Ended>(async (change) => {
      // The person is locked as for a change, so that no token of theirs is issued meanwhile.
      const { now } = await this.locks.lock(change, actor, { change: { users: [userId] } });
      if (!now.rights.holds('users:write')) throw forbidden('Only administrators may do this (users:write).');
      const [person] = await change.read(['SELECT 1 FROM users WHERE id = $1', [userId]]);
      if (!person) throw notFound('person');
      if (reason === 'exposed') return this.closures.beginForOwner(change, now, userId, { comment });
      return this.revocations.revokeAllOf(change, now, userId, { reason, comment });
    });
    if ('id' in done) return this.closures.finish(done, waitMs);
    const effect = done.invalidations.length
      ? await this.revocations.settle(done.invalidations, done.tokenIds, waitMs)
      : await this.revocations.nothingLeft(waitMs);
    return { ...effect, ended: done.counts };
  }

  /**
   * Issues a successor with the same rights. The old token ends at once, or after the overlap, never later than its own
   * end; the successor keeps the old end unless a person says otherwise. A token is rotated once.
   */
  rotate(actor: Actor, id: string, body: RotateTokenBody, waitMs?: number): Promise<RotatedToken> {
    return this.rotations.rotate(actor, id, body, waitMs);
  }

  /** Rotates the token that carries the request: any token may. */
  rotateSelf(actor: Actor, body: RotateTokenBody, waitMs?: number): Promise<RotatedToken> {
    return this.rotations.rotateSelf(actor, carrying(actor), body, waitMs);
  }

  /** The scopes known, and which the caller may grant. */
  listScopes(actor: Actor) {
    return {
      items: this.scopes.declarations.map(({ name, description }) => ({
        name,
        description,
        grantable: actor.rights.holdsSomewhere(name) || (actor.type === 'token' && actor.facts.scopes.includes(name)),
      })),
    };
  }

  /** The change is committed: reading the record need not wait for the verifiers. */
  async #effectOn(id: string, settled: Promise<Effect> | Effect): Promise<TokenEffect> {
    const [effect, token] = await Promise.all([settled, this.records.read(id)]);
    return { ...effect, token: { ...token, receipt: effect.receipt ?? token.receipt } };
  }

  async #revoked(id: string, done: Ended, waitMs: number | undefined): Promise<RevokedToken> {
    const effect = this.revocations.confirmRevoked(id, done, waitMs);
    return { ...(await this.#effectOn(id, effect)), ended: done.counts };
  }
}

function carrying(actor: Actor): string {
  if (actor.type === 'token') return actor.tokenId;
  throw new ApiError(
    'invalid_request',
    'No token carries this request: send one as `Authorization: Bearer`, without signing in.',
  );
}
