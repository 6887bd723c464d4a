import type { ImportedToken, importTokensBody } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { Inject, Injectable } from '@nestjs/common';
import type { z } from 'zod';
import { AuditService } from '../audit/index.js';
import { type Actor, actorId, ScopesService } from '../authorization/index.js';
import { CONFIG, type TokenServiceConfig } from '../config.js';
import { type Change, constraintHit, Database } from '../database/index.js';
import { badField, conflict } from '../http/index.js';
import { InvalidationService } from '../invalidation/index.js';
import { LocksService } from '../verification/index.js';
import { ancestorsOf, FAMILY_IMPORTED_HOUR_MAX, lockForIssue, mustBeWithinFamilyRate, ownerOf } from './issue.rules.js';
import { RevocationsService } from './revocations.service.js';
import { requestedColumns } from './token.entity.js';
import { entryOf, TokenRepository } from './token.repository.js';
import { mustGrant, mustMeetPolicy, requestedExpiry } from './token.rules.js';

type ImportBody = z.output<typeof importTokensBody>;

/** Imports tokens whose secrets are in use already; only their SHA-256 is known here. */
@Injectable()
export class ImportService {
  constructor(
    private readonly db: Database,
    private readonly audit: AuditService,
    private readonly locks: LocksService,
    private readonly scopes: ScopesService,
    private readonly tokens: TokenRepository,
    private readonly invalidations: InvalidationService,
    private readonly revocations: RevocationsService,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
  ) {}

  /**
   * Imports all or none, under the rules of issuing: for the caller or a project where they may issue. Returns once no
   * verifier has any of them cached as unknown.
   * @throws ApiError `conflict` when one of them exists already
   */
  async import(
    actor: Actor,
    body: ImportBody,
  ): Promise<{ imported: number; tokens: { id: string; name: string; start: string }[] }> {
    mustDiffer(body.tokens);
    const projectId = body.projectId ?? null;
    const kind = projectId === null ? 'pat' : 'prj';
    const sha256s = body.tokens.map(({ sha256 }) => Buffer.from(sha256, 'hex').toString('base64url'));
    const given = body.tokens.map((token, index) => this.#parsed(token, index, kind));
    const invalidation = await this.#change(async (change) => {
      const context = await lockForIssue(this.locks, change, actor, projectId);
      const { now, generation } = context;
      const owner = ownerOf(context);
      mustGrant(now, this.scopes, [...new Set(given.flatMap((token) => token.scopes))], projectId);
      const bounds = given.map((token, index) => {
        return { ...token, rateLimit: body.tokens[index]!.rateLimit ?? null };
      });
      mustMeetPolicy(context.policy, ...bounds);
      const lineages = bounds.map((bound) => ancestorsOf(now, bound));
      if (await this.tokens.isKnown(change, sha256s)) throw exists();
      const familyId = mustBeWithinFamilyRate(context.family, given.length, FAMILY_IMPORTED_HOUR_MAX);
      const creator = { createdByType: now.type, createdById: actorId(now), familyId, generation, rotatedFrom: null };
      const imported = given.map((token, index) => ({ ...token, ...owner, ...creator, ancestors: lineages[index]! }));
      this.tokens.insertAll(change, imported, sha256s);
      this.audit.recordAll(
        change,
        imported.map((token) => entryOf(now, 'token.issued', token, issuedDetails(token))),
      );
      return this.invalidations.write(change, { kind: 'misses', subject: '', cut: false });
    });
    await this.revocations.awaitConfirmation([invalidation], [], undefined);
    return { imported: given.length, tokens: given.map(({ id, name, start }) => ({ id, name, start })) };
  }

  #parsed(token: ImportedToken, index: number, kind: 'pat' | 'prj') {
    const path = `tokens.${index}`;
    const prefix = `${this.config.TOKEN_PREFIX}_${kind}_`;
    if (!token.start.startsWith(prefix))
      throw badField(
        `${path}.start`,
        `must begin with ${prefix}, as every ${kind === 'pat' ? 'personal' : 'project'} token does`,
      );
    const createdAt = new Date();
    return {
      id: newId(),
      kind,
      start: token.start,
      ...requestedColumns(token, `${path}.`),
      createdAt,
      expiresAt: requestedExpiry(token, createdAt, `${path}.`) ?? null,
    };
  }

  async #change<T>(work: (change: Change) => Promise<T>): Promise<T> {
    try {
      return await this.db.change(work);
    } catch (error) {
      if (constraintHit(error) === 'tokens_hash_once') throw exists();
      throw error;
    }
  }
}

const exists = () => conflict('One of these tokens exists already. Nothing was imported.');

function mustDiffer(tokens: readonly ImportedToken[]): void {
  const seen = new Set<string>();
  tokens.forEach(({ sha256 }, index) => {
    if (seen.has(sha256)) throw badField(`tokens.${index}.sha256`, 'occurs twice in this request');
    seen.add(sha256);
  });
}

const issuedDetails = (token: { kind: string; scopes: string[]; expiresAt: Date | null }) => ({
  imported: true,
  kind: token.kind,
  scopes: token.scopes,
  expiresAt: token.expiresAt?.toISOString() ?? null,
});
