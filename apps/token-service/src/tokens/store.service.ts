import { startOf } from '@latchkey/token-format';
import { Inject, Injectable } from '@nestjs/common';
import type { QueryResultRow } from 'pg';
import { type AuditEntry, AuditService } from '../audit/index.js';
import type { Actor } from '../authorization/index.js';
import { CONFIG, type TokenServiceConfig } from '../config.js';
import { inOrder, type Statement, type Tx } from '../database/index.js';
import { FactsService, LocksService } from '../verification/index.js';
import { selectToken, type TokenEntity } from './token.entity.js';
import { type Bounds, mustChange, mustSee } from './token.rules.js';

/** A token about to be stored, with its secret, which is not. */
export interface NewToken extends Omit<Bounds, 'end'> {
  id: string;
  kind: 'pat' | 'prj';
  name: string;
  description: string;
  metadata: Record<string, string>;
  ownerUserId: string | null;
  projectId: string | null;
  createdByType: 'user' | 'token' | 'system';
  createdById: string | null;
  ancestors: string[];
  createdAt: Date;
  expiresAt: Date | null;
  rotatedFrom: string | null;
  /** Default null. */
  rateBucket?: string | null;
  /** Of the token that is shown it. */
  familyId: string | null;
  /** In which its maker was seen to live; of a successor, its predecessor's. */
  generation: number;
  secret: string;
}

export const actorId = (actor: Actor): string => (actor.type === 'user' ? actor.userId : actor.tokenId);

/** Tokens as rows: held for a change, inserted, and told of in the audit log. */
@Injectable()
export class StoreService {
  constructor(
    private readonly audit: AuditService,
    private readonly locks: LocksService,
    private readonly facts: FactsService,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
  ) {}

  /**
   * Locks a token for a change with all that the change rests on.
   * @param before the token as `selectToken` found it, which says what it rests on: that never changes
   * @param reading what else is read under the locks
   * @returns all as it is now
   * @throws Refusal when the actor may not see or not change it
   */
  async hold<A extends Actor>(
    tx: Tx,
    actor: A,
    before: unknown,
    ...reading: Statement[]
  ): Promise<{ now: A; token: TokenEntity; read: QueryResultRow[][] }> {
    const seen = (before as TokenEntity | undefined) ?? null;
    mustSee(actor, seen);
    const { id, projectId, ancestors } = seen;
    const rest = { projects: projectId ? [projectId] : [], tokens: ancestors };
    const lock = { change: { tokens: [id] }, rest };
    const { now, read } = await this.locks.holdAndRead(tx, actor, lock, selectToken(id), ...reading);
    const token = read[0]![0] as TokenEntity;
    mustChange(now, token);
    return { now, token, read: read.slice(1) };
  }

  /** Stores a new token; of its secret only the HMAC and the start. */
  async insert(tx: Tx, token: NewToken): Promise<void> {
    await inOrder(tx, [this.inserting(token)]);
  }

  /** The statement that does so. */
  inserting(token: NewToken): Statement {
    return [
      INSERT_TOKEN,
      [
        token.id,
        this.facts.storedHash(token.secret),
        token.kind,
        token.name,
        token.description,
        startOf(token.secret, this.config.TOKEN_PREFIX),
        token.ownerUserId,
        token.projectId,
        token.createdByType,
        token.createdById,
        token.ancestors,
        token.scopes,
        token.allowedIps,
        token.rateLimit?.limit ?? null,
        token.rateLimit?.windowSeconds ?? null,
        JSON.stringify(token.metadata),
        token.createdAt,
        token.expiresAt,
        token.rotatedFrom,
        token.rateBucket ?? null,
        token.familyId,
        token.generation,
      ],
    ];
  }

  /** Writes an audit event about a token. */
  async record(
    tx: Tx,
    actor: Actor,
    action: AuditEntry['action'],
    token: Pick<TokenEntity, 'id' | 'name' | 'projectId'>,
    details: Record<string, unknown> = {},
  ): Promise<void> {
    await this.audit.record(tx, entryOf(actor, action, token, details));
  }
}

const INSERT_TOKEN = `INSERT INTO tokens (id, hash, kind, name, description, start, owner_user_id, project_id,
    created_by_type, created_by_id, ancestors, scopes, allowed_ips, rate_limit, rate_window_seconds, metadata, created_at,
    expires_at, rotated_from, rate_bucket, family_id, generation)
  VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)`;

/** What the audit log says of a change of a token. */
export function entryOf(
  actor: Actor,
  action: AuditEntry['action'],
  token: Pick<TokenEntity, 'id' | 'name' | 'projectId'>,
  details: Record<string, unknown> = {},
): AuditEntry {
  const subject = { type: 'token' as const, id: token.id, name: token.name };
  return { actor, action, tokenId: token.id, projectId: token.projectId, subject, details };
}
