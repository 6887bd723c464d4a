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
import { ancestorsOf, FAMILY_IMPORTED_HOUR_MAX, lockForIssue, mustGrowSlowly, ownerOf } from './issue.rules.js';
import { RevocationsService } from './revocations.service.js';
import { askedColumns } from './token.entity.js';
import { entryOf, TokenRepository } from './token.repository.js';
import { chosenEnd, mustGrant, mustMeetPolicy } from './token.rules.js';

type ImportBody = z.output<typeof importTokensBody>;

/** Takes over tokens whose secrets are out in the world already and known here by their SHA-256 alone. */
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
   * Imports all or none, under the rules of issuing: into the caller's own name or a project where they may issue.
   * Returns once no verifier remembers any of them as unknown.
   * @throws ApiError `conflict` when one of them is known here already
   */
  async import(
    actor: Actor,
    body: ImportBody,
  ): Promise<{ imported: number; tokens: { id: string; name: string; start: string }[] }> {
    mustDiffer(body.tokens);
    const projectId = body.projectId ?? null;
    const kind = projectId === null ? 'pat' : 'prj';
    const sha256s = body.tokens.map(({ sha256 }) => Buffer.from(sha256, 'hex').toString('base64url'));
    const given = body.tokens.map((token, at) => this.#parsed(token, at, kind));
    const invalidation = await this.#changed(async (change) => {
      const context = await lockForIssue(this.locks, change, actor, projectId);
      const { now, generation } = context;
      const owner = ownerOf(context);
      mustGrant(now, this.scopes, [...new Set(given.flatMap((token) => token.scopes))], projectId);
      const bounds = given.map((token, at) => {
        return { ...token, rateLimit: body.tokens[at]!.rateLimit ?? null, end: token.expiresAt };
      });
      mustMeetPolicy(context.policy, ...bounds);
      const lineages = bounds.map((bound) => ancestorsOf(now, bound));
      if (await this.tokens.isKnown(change, sha256s)) throw knownAlready();
      const familyId = mustGrowSlowly(context.family, given.length, FAMILY_IMPORTED_HOUR_MAX);
      const maker = { createdByType: now.type, createdById: actorId(now), familyId, generation, rotatedFrom: null };
      const made = given.map((token, at) => ({ ...token, ...owner, ...maker, ancestors: lineages[at]! }));
      this.tokens.insertAll(change, made, sha256s);
      this.audit.recordAll(
        change,
        made.map((token) => entryOf(now, 'token.issued', token, issuedDetails(token))),
      );
      return this.invalidations.write(change, { kind: 'misses', subject: '', cut: false });
    });
    await this.revocations.settle([invalidation], [], undefined);
    return { imported: given.length, tokens: given.map(({ id, name, start }) => ({ id, name, start })) };
  }

  #parsed(token: ImportedToken, at: number, kind: 'pat' | 'prj') {
    const place = `tokens.${at}`;
    const head = `${this.config.TOKEN_PREFIX}_${kind}_`;
    if (!token.start.startsWith(head))
      throw badField(
        `${place}.start`,
        `must begin with ${head}, as every ${kind === 'pat' ? 'personal' : 'project'} token does here`,
      );
    const createdAt = new Date();
    return {
      id: newId(),
      kind,
      start: token.start,
      ...askedColumns(token, `${place}.`),
      createdAt,
      expiresAt: chosenEnd(token, createdAt) ?? null,
    };
  }

  async #changed<T>(work: (change: Change) => Promise<T>): Promise<T> {
    try {
      return await this.db.change(work);
    } catch (error) {
      if (constraintHit(error) === 'tokens_hash_once') throw knownAlready();
      throw error;
    }
  }
}

const knownAlready = () => conflict('One of these tokens is known here already. Nothing was imported.');

function mustDiffer(tokens: readonly ImportedToken[]): void {
  const seen = new Set<string>();
  tokens.forEach(({ sha256 }, at) => {
    if (seen.has(sha256)) throw badField(`tokens.${at}.sha256`, 'comes twice in this request');
    seen.add(sha256);
  });
}

const issuedDetails = (token: { kind: string; scopes: string[]; expiresAt: Date | null }) => ({
  imported: true,
  kind: token.kind,
  scopes: token.scopes,
  expiresAt: token.expiresAt?.toISOString() ?? null,
});
