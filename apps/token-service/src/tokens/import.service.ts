import type { ImportedToken, importTokensBody } from '@latchkey/contracts';
import { newId } from '@latchkey/runtime';
import { Inject, Injectable } from '@nestjs/common';
import type { z } from 'zod';
import { type AuditEntry, AuditService } from '../audit/index.js';
import { type Actor, ScopesService } from '../authorization/index.js';
import { CONFIG, type TokenServiceConfig } from '../config.js';
import { constraintHit, Database, rows, type Tx } from '../database/index.js';
import { badField, conflict } from '../http/index.js';
import { InvalidationService } from '../invalidation/index.js';
import { FactsService, LocksService } from '../verification/index.js';
import { FAMILY_IMPORTED_HOUR_MAX, familyOf } from './families.js';
import { ancestorsOfChild, ownerFor } from './ownership.js';
import { PolicyService } from './policy.service.js';
import { RevocationsService } from './revocations.service.js';
import { actorId } from './store.service.js';
import { canonicalAddresses, chosenEnd, mustGrant, type Owned } from './token.rules.js';

/** A row to be inserted, by the names of its columns. */
interface Prepared {
  id: string;
  hash: Buffer;
  kind: 'pat' | 'prj';
  name: string;
  description: string;
  start: string;
  scopes: string[];
  allowed_ips: string[];
  rate_limit: number | null;
  rate_window_seconds: number | null;
  metadata: Record<string, string>;
  ancestors: string[];
  created_at: Date;
  expires_at: Date | null;
}

type ImportBody = z.output<typeof importTokensBody>;

/** Takes over tokens whose secrets are out in the world already and known here by their SHA-256 alone. */
@Injectable()
export class ImportService {
  constructor(
    private readonly db: Database,
    private readonly audit: AuditService,
    private readonly locks: LocksService,
    private readonly scopes: ScopesService,
    private readonly facts: FactsService,
    private readonly policy: PolicyService,
    private readonly invalidations: InvalidationService,
    private readonly revocations: RevocationsService,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
  ) {}

  /**
   * Imports all or none, under the rules of issuing: into the caller's own name or a project where they may issue.
   * Returns once no verifier remembers any of them as unknown.
   * @throws Refusal `conflict` when one of them is known here already
   */
  async import(
    actor: Actor,
    body: ImportBody,
  ): Promise<{ imported: number; tokens: { id: string; name: string; start: string }[] }> {
    mustDiffer(body.tokens);
    const projectId = body.projectId ?? null;
    const kind = projectId === null ? 'pat' : 'prj';
    const made = body.tokens.map((token, at) => this.#prepared(token, at, kind));
    const invalidation = await this.#changed(async (tx) => {
      const lock = { rest: { projects: projectId ? [projectId] : [] } };
      const { now, generation } = await this.locks.holdAndRead(tx, actor, lock);
      const owner = await ownerFor(tx, now, projectId);
      mustGrant(now, this.scopes, [...new Set(made.flatMap((token) => token.scopes))], projectId);
      const demanded = made.map((token) => ({
        createdAt: token.created_at,
        end: token.expires_at,
        allowedIps: token.allowed_ips,
      }));
      await this.policy.mustMeet(tx, ...demanded);
      for (const token of made) {
        if (now.type !== 'token') continue;
        const rateLimit =
          token.rate_limit === null ? null : { limit: token.rate_limit, windowSeconds: token.rate_window_seconds! };
        token.ancestors = ancestorsOfChild(now, {
          ...token,
          allowedIps: token.allowed_ips,
          rateLimit,
          end: token.expires_at,
        });
      }
      await this.#mustBeNew(tx, body.tokens);
      const familyId = await familyOf(tx, now, made.length, FAMILY_IMPORTED_HOUR_MAX);
      await this.#insert(tx, made, { ...owner, type: now.type, id: actorId(now), familyId, generation });
      await this.audit.recordAll(
        tx,
        made.map((token) => issuedEntry(now, token, projectId)),
      );
      return this.invalidations.write(tx, { kind: 'misses', subject: '', cut: false });
    });
    await this.revocations.settle([invalidation], [], undefined);
    return { imported: made.length, tokens: made.map(({ id, name, start }) => ({ id, name, start })) };
  }

  #prepared(token: ImportedToken, at: number, kind: 'pat' | 'prj'): Prepared {
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
      hash: this.facts.storedHashes(Buffer.from(token.sha256, 'hex').toString('base64url'))[0]!,
      kind,
      name: token.name,
      description: token.description ?? '',
      start: token.start,
      scopes: token.scopes,
      allowed_ips: canonicalAddresses(token.allowedIps, `${place}.allowedIps`),
      rate_limit: token.rateLimit?.limit ?? null,
      rate_window_seconds: token.rateLimit?.windowSeconds ?? null,
      metadata: token.metadata ?? {},
      ancestors: [],
      created_at: createdAt,
      expires_at: chosenEnd(token, createdAt) ?? null,
    };
  }

  /** Known under a retired pepper counts too, which the unique constraint cannot see. */
  async #mustBeNew(tx: Tx, tokens: readonly ImportedToken[]): Promise<void> {
    const hashes = tokens.flatMap((token) =>
      this.facts.storedHashes(Buffer.from(token.sha256, 'hex').toString('base64url')),
    );
    const [known] = await rows(tx, 'SELECT 1 FROM tokens WHERE hash = ANY ($1) LIMIT 1', [hashes]);
    if (known) throw knownAlready();
  }

  async #insert(
    tx: Tx,
    made: readonly Prepared[],
    by: Owned & { type: string; id: string; familyId: string | null; generation: number },
  ): Promise<void> {
    const listed = made.map((token) => ({ ...token, hash: token.hash.toString('hex') }));
    await rows(
      tx,
      `INSERT INTO tokens (id, hash, kind, name, description, start, owner_user_id, project_id, created_by_type, created_by_id,
         ancestors, scopes, allowed_ips, rate_limit, rate_window_seconds, metadata, created_at, expires_at, family_id,
         generation)
       SELECT id, decode(hash, 'hex'), kind, name, description, start, $2, $3, $4, $5,
         ancestors, scopes, allowed_ips, rate_limit, rate_window_seconds, metadata, created_at, expires_at, $6::uuid, $7
       FROM jsonb_to_recordset($1::jsonb) AS t(id uuid, hash text, kind text, name text, description text, start text,
         ancestors uuid[], scopes text[], allowed_ips text[], rate_limit integer, rate_window_seconds integer,
         metadata jsonb, created_at timestamptz, expires_at timestamptz)`,
      [JSON.stringify(listed), by.ownerUserId, by.projectId, by.type, by.id, by.familyId, by.generation],
    );
  }

  async #changed<T>(change: (tx: Tx) => Promise<T>): Promise<T> {
    try {
      return await this.db.transaction(change);
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

const issuedEntry = (
  actor: Actor,
  token: { id: string; name: string; kind: string; scopes: string[]; expires_at: Date | null },
  projectId: string | null,
): AuditEntry => ({
  actor,
  action: 'token.issued',
  tokenId: token.id,
  projectId,
  subject: { type: 'token', id: token.id, name: token.name },
  details: {
    imported: true,
    kind: token.kind,
    scopes: token.scopes,
    expiresAt: token.expires_at?.toISOString() ?? null,
  },
});
