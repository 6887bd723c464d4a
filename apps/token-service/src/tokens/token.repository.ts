import { hashSecret } from '@latchkey/token-format';
import { Injectable } from '@nestjs/common';
import type { QueryResultRow } from 'pg';
import type { AuditEntry } from '../audit/index.js';
import type { Actor, NamedActor } from '../authorization/index.js';
import { type Change, insertAllInto, insertInto, type Statement } from '../database/index.js';
import { LocksService, PeppersService, SecretHasher } from '../verification/index.js';
import { type NewToken, TokenEntity } from './token.entity.js';
import { selectKnown, selectToken } from './token.queries.js';
import { mustChange, mustSee } from './token.rules.js';

/** Locks and inserts rows of tokens. */
@Injectable()
export class TokenRepository {
  constructor(
    private readonly locks: LocksService,
    private readonly hasher: SecretHasher,
    private readonly peppers: PeppersService,
  ) {}

  /**
   * Locks a token for a change, with the rows that the change depends on.
   * @param reading statements to read under the locks
   * @returns the state under the locks
   * @throws ApiError when the actor may not see or change it
   */
  async lock<A extends Actor>(
    change: Change,
    actor: A,
    id: string,
    ...reading: Statement[]
  ): Promise<{ now: A; token: TokenEntity; read: QueryResultRow[][] }> {
    // Which rows it depends on never changes, so they are read before any lock.
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

  /** Inserts a token; of its secret only the HMAC. */
  insert(change: Change, token: NewToken & Partial<TokenEntity>, secret: string): void {
    change.write(insertInto(TokenEntity, { ...token, ...this.hasher.columnsOf(hashSecret(secret)) }));
  }

  /** Inserts any number of tokens in one statement. @param sha256s of their secrets, base64url */
  insertAll(change: Change, tokens: readonly NewToken[], sha256s: readonly string[]): void {
    change.write(
      insertAllInto(
        TokenEntity,
        tokens.map((token, index) => ({ ...token, ...this.hasher.columnsOf(sha256s[index]!) })),
      ),
    );
  }

  /**
   * Whether a token with one of these secrets exists, under any pepper.
   * @param sha256s base64url
   * @throws ApiError `unavailable` when one may, under a pepper that this process lacks
   */
  async isKnown(change: Change, sha256s: readonly string[]): Promise<boolean> {
    const hashes = sha256s.flatMap((sha256) => this.hasher.hashes(sha256));
    const [row] = await change.read<{ known: boolean; lacking: string[] | null }>(
      selectKnown(hashes, this.peppers.fingerprints),
    );
    if (row!.known) return true;
    const error = this.peppers.errorOf(row!.lacking);
    if (error) throw error;
    return false;
  }
}

/** The audit event of a change of a token. */
export function entryOf(
  actor: NamedActor,
  action: AuditEntry['action'],
  token: Pick<TokenEntity, 'id' | 'name' | 'projectId'>,
  details: Record<string, unknown> = {},
): AuditEntry {
  const subject = { type: 'token' as const, id: token.id, name: token.name };
  return { actor, action, tokenId: token.id, projectId: token.projectId, subject, details };
}

export function issuedEntry(actor: Actor, token: NewToken): AuditEntry {
  const { kind, scopes, expiresAt, ancestors } = token;
  const details = { kind, scopes, expiresAt: expiresAt?.toISOString() ?? null };
  return entryOf(actor, 'token.issued', token, { ...details, ...(ancestors.length && { parentId: ancestors[0] }) });
}
