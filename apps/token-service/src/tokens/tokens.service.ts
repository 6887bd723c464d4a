import type {
  Effect,
  IssuedToken,
  IssueTokenBody,
  ListTokensQuery,
  PatchTokenBody,
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
import { conflict, forbidden, notFound, type Page, Refusal } from '../http/index.js';
import { InvalidationService } from '../invalidation/index.js';
import { LocksService } from '../verification/index.js';
import { AftermathService } from './aftermath.service.js';
import { type Begun, ClosuresService } from './closures.service.js';
import { type ExposureRow, type StandingRow, selectExposureOf, selectStanding } from './exposure.queries.js';
import { type FamilyRow, mustGrowSlowly, selectFamily } from './families.js';
import { claimKey } from './idempotency.js';
import { ancestorsOfChild, type OwnerName, ownerOf, selectOwner } from './ownership.js';
import { mustMeetPolicy, type PolicyRow, PolicyService, SELECT_POLICY, toPolicy } from './policy.service.js';
import { RecordsService, recordOfNew } from './records.service.js';
import { type Ended, markBelow, RevocationsService, selectEnding } from './revocations.service.js';
import { RotationsService } from './rotations.service.js';
import { TokenEntity } from './token.entity.js';
import { actorId, entryOf, TokenRepository } from './token.repository.js';
import { boundsOf, canonicalAddresses, chosenEnd, mustBeWithin, mustGrant, mustSee, rateOf } from './token.rules.js';

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
    private readonly policy: PolicyService,
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
    const allowedIps = canonicalAddresses(body.allowedIps);
    const projectId = body.projectId ?? null;
    // A person's own name comes with their locks.
    const isOwn = actor.type === 'user' && projectId === null;
    const reading = [
      SELECT_POLICY,
      ...(isOwn ? [] : [selectOwner(projectId, actor.userId)]),
      ...(actor.type === 'token' ? [selectFamily(actor.tokenId)] : []),
    ];
    const lock = { rest: { projects: projectId === null ? [] : [projectId] } };
    const issued = await this.db.change<{ earlier: string } | Token>(async (change) => {
      const { now, generation, read } = await this.locks.lock(change, actor, lock, ...reading);
      const [[policy] = [], ...more] = read;
      const [named] = isOwn ? [] : (more.shift() ?? []);
      const [family] = more.shift() ?? [];
      if (idempotencyKey !== undefined) {
        const earlier = await claimKey(change, now, idempotencyKey, body, id);
        if (earlier !== null) return { earlier };
      }
      const familyId = mustGrowSlowly(family as FamilyRow | undefined);
      const owner = ownerOf(now, projectId, named as OwnerName | undefined);
      mustGrant(now, this.scopes, body.scopes, projectId);
      const createdAt = new Date();
      const expiresAt = chosenEnd(body, createdAt) ?? null;
      const rateLimit = body.rateLimit ?? null;
      mustMeetPolicy(toPolicy(policy as PolicyRow), { createdAt, end: expiresAt, allowedIps });
      const bounds = { scopes: body.scopes, allowedIps, rateLimit, end: expiresAt };
      const ancestors = now.type === 'token' ? ancestorsOfChild(now, bounds) : [];
      const token = {
        ...owner,
        id,
        kind: body.kind,
        name: body.name,
        description: body.description ?? '',
        metadata: body.metadata ?? {},
        createdByType: now.type,
        createdById: actorId(now),
        ancestors,
        scopes: body.scopes,
        allowedIps,
        rateLimit,
        createdAt,
        expiresAt,
        rotatedFrom: null,
        familyId,
        generation,
        secret,
      };
      const details = {
        kind: body.kind,
        scopes: body.scopes,
        expiresAt: expiresAt?.toISOString() ?? null,
        ...(ancestors.length && { parentId: ancestors[0] }),
      };
      this.tokens.insert(change, token);
      this.audit.record(change, entryOf(now, 'token.issued', token, details));
      const names = { owner: isOwn ? now.name : (named as OwnerName).name, maker: now.name };
      return recordOfNew({ ...token, start: startOf(secret, this.config.TOKEN_PREFIX) }, names);
    });
    if ('earlier' in issued) return { replayed: true, token: await this.records.read(issued.earlier) };
    return { replayed: false, token: { ...issued, secret } };
  }

  list(actor: Actor, query: ListTokensQuery): Promise<Page<Token>> {
    return this.records.list(actor, query);
  }

  /** @throws Refusal `not_found` when it is not there or the caller may not see it */
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
      const { now, token } = await this.tokens.lock(change, actor, id);
      if (token.revokedAt) throw conflict('The token is revoked. A revoked token stays as it was; issue a new one.');
      const disabled = body.disabled ?? token.disabledAt !== null;
      const rate = body.rateLimit === undefined ? rateOf(token) : body.rateLimit;
      const changes = {
        name: body.name ?? token.name,
        description: body.description ?? token.description,
        metadata: body.metadata ?? token.metadata,
        scopes: body.scopes ?? token.scopes,
        allowedIps: allowedIps ?? token.allowedIps,
        rateLimit: rate?.limit ?? null,
        rateWindowSeconds: rate?.windowSeconds ?? null,
        disabledAt: disabled ? (token.disabledAt ?? new Date()) : null,
      };
      const added = changes.scopes.filter((scope) => !token.scopes.includes(scope));
      mustGrant(now, this.scopes, added, token.projectId);
      if (allowedIps) await this.policy.mustMeetAddresses(change, allowedIps);
      const isDisabling = disabled && token.disabledAt === null;
      const isEnabling = !disabled && token.disabledAt !== null;
      const boundsChange = body.scopes !== undefined || allowedIps !== undefined || body.rateLimit !== undefined;
      // Nor does a token lift the bounds that it was given itself.
      if (now.type === 'token' && (boundsChange || isEnabling)) mustBeWithin(now, boundsOf({ ...token, ...changes }));
      // Disabling once more waits in full too: the first may be on its way still.
      const touchesChecks = boundsChange || body.disabled !== undefined;
      const invalidation = touchesChecks ? { id: newId(), kind: 'token' as const, subject: id, cut: disabled } : null;
      const fields = Object.keys(body).filter((field) => field !== 'disabled');
      const renamed = { ...token, name: changes.name };
      const written = this.invalidations.writeAll(change, invalidation ? [invalidation] : []);
      const told = invalidation && { invalidationId: invalidation.id, receipt: null };
      change.write(update(TokenEntity, { id }, { ...changes, ...told }));
      if (isDisabling || isEnabling) change.write(markBelow(id));
      this.audit.recordAll(change, [
        ...(fields.length ? [entryOf(now, 'token.updated', renamed, changedDetails(token, changes, fields))] : []),
        ...(isDisabling ? [entryOf(now, 'token.disabled', token)] : []),
        ...(isEnabling ? [entryOf(now, 'token.enabled', token)] : []),
      ]);
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
  throw new Refusal(
    'invalid_request',
    'No token carries this request: send one as `Authorization: Bearer`, without signing in.',
  );
}

/** What an update changed: the old and new bounds, and of texts only that they changed. */
function changedDetails(before: TokenEntity, after: Partial<TokenEntity>, fields: string[]): Record<string, unknown> {
  const details: Record<string, unknown> = { fields };
  if (fields.includes('name')) details['name'] = { from: before.name, to: after.name };
  if (fields.includes('scopes')) details['scopes'] = { from: before.scopes, to: after.scopes };
  if (fields.includes('allowedIps')) details['allowedIps'] = { from: before.allowedIps, to: after.allowedIps };
  if (fields.includes('rateLimit')) details['rateLimit'] = { from: rateOf(before), to: rateOf(after as TokenEntity) };
  return details;
}
