import { startOf } from '@latchkey/token-format';
import { Inject, Injectable } from '@nestjs/common';
import type { QueryResultRow } from 'pg';
import type { AuditEntry } from '../audit/index.js';
import type { Actor } from '../authorization/index.js';
import { CONFIG, type TokenServiceConfig } from '../config.js';
import { type Change, insertAllInto, insertInto, type Statement } from '../database/index.js';
import { FactsService, LocksService } from '../verification/index.js';
import { selectToken, TokenEntity } from './token.entity.js';
import { type Bounds, mustChange, mustSee } from './token.rules.js';

/** A token about to be stored. */
interface NewRow extends Omit<Bounds, 'end'> {
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
}

/** With its secret, which is not stored. */
export type NewToken = NewRow & { secret: string };

/** Whose secret is out in the world already, and known here by its SHA-256 (base64url) and how it begins. */
export type ImportedRow = NewRow & { sha256: string; start: string };

export const actorId = (actor: Actor): string => (actor.type === 'user' ? actor.userId : actor.tokenId);

/** Tokens as rows: locked for a change, and inserted. */
@Injectable()
export class TokenRepository {
  constructor(
    private readonly locks: LocksService,
    private readonly facts: FactsService,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
  ) {}

  /**
   * Locks a token for a change with all that the change rests on.
   * @param reading what else is read under the locks
   * @returns all as it is now
   * @throws Refusal when the actor may not see or not change it
   */
  async lock<A extends Actor>(
    change: Change,
    actor: A,
    id: string,
    ...reading: Statement[]
  ): Promise<{ now: A; token: TokenEntity; read: QueryResultRow[][] }> {
    // What it rests on never changes, so that can be read before anything is locked.
    const [before = null] = await change.read<TokenEntity>(selectToken(id));
    mustSee(actor, before);
    const { projectId, ancestors } = before;
    const rest = { projects: projectId ? [projectId] : [], tokens: ancestors };
    const lock = { change: { tokens: [id] }, rest };
    const { now, read } = await this.locks.lock(change, actor, lock, selectToken(id), ...reading);
    const token = read[0]![0] as TokenEntity;
    mustChange(now, token);
    return { now, token, read: read.slice(1) };
  }

  /** Stores a new token; of its secret only the HMAC and the start. */
  insert(change: Change, token: NewToken): void {
    const hash = this.facts.storedHash(token.secret);
    change.write(
      insertInto(TokenEntity, { ...rowOf(token), hash, start: startOf(token.secret, this.config.TOKEN_PREFIX) }),
    );
  }

  /** Stores tokens in one statement, however many; of their secrets only the SHA-256 is known. */
  insertAll(change: Change, tokens: readonly ImportedRow[]): void {
    const rows = tokens.map((token) => {
      return { ...rowOf(token), hash: this.facts.storedHashes(token.sha256)[0]!, start: token.start };
    });
    change.write(insertAllInto(TokenEntity, rows));
  }

  /** Whether one of these secrets is known already, under whatever pepper. In: their SHA-256, base64url. */
  async isKnown(change: Change, sha256s: readonly string[]): Promise<boolean> {
    const hashes = sha256s.flatMap((sha256) => this.facts.storedHashes(sha256));
    return (await change.read(['SELECT 1 FROM tokens WHERE hash = ANY ($1) LIMIT 1', [hashes]])).length > 0;
  }
}

/** Only what a new token has: one that takes another's place is made of that one's record. */
const rowOf = ({ rateLimit, rateBucket = null, ...token }: NewRow): Partial<TokenEntity> => ({
  id: token.id,
  kind: token.kind,
  name: token.name,
  description: token.description,
  metadata: token.metadata,
  ownerUserId: token.ownerUserId,
  projectId: token.projectId,
  createdByType: token.createdByType,
  createdById: token.createdById,
  ancestors: [...token.ancestors],
  scopes: [...token.scopes],
  allowedIps: [...token.allowedIps],
  rateLimit: rateLimit?.limit ?? null,
  rateWindowSeconds: rateLimit?.windowSeconds ?? null,
  rateBucket,
  createdAt: token.createdAt,
  expiresAt: token.expiresAt,
  rotatedFrom: token.rotatedFrom,
  familyId: token.familyId,
  generation: token.generation,
});

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
