import type { RevocationReason } from '@latchkey/contracts';
import { Injectable } from '@nestjs/common';
import { AuditService } from '../audit/index.js';
import { SYSTEM } from '../authorization/index.js';
import { type Change, Database, update } from '../database/index.js';
import { lockRows } from '../verification/index.js';
import { ClosuresService } from './closures.service.js';
import { selectTokenStates, type TokenStateRow } from './exposure.queries.js';
import { RevocationsService } from './revocations.service.js';
import { TokenEntity } from './token.entity.js';
import { markDescendants, selectTokens } from './token.queries.js';
import { entryOf } from './token.repository.js';

/** Narrows tokens again that a restored database knows with more rights than they had. */
@Injectable()
export class RestoredTokensService {
  constructor(
    private readonly db: Database,
    private readonly audit: AuditService,
    private readonly revocations: RevocationsService,
    private readonly closures: ClosuresService,
  ) {}

  /**
   * Revokes those that exist and are not revoked, with their descendants; exposed ones with all that they were shown.
   * Verifiers are notified by what the caller writes afterwards.
   * @returns how many were revoked
   */
  async revokeAgain(ids: readonly string[], reason: RevocationReason, comment: string): Promise<number> {
    const { started, count } = await this.db.change(async (change) => {
      await lockRows(change, 'tokens', ids);
      const rows = await change.read<TokenStateRow>(selectTokenStates(ids));
      const live = rows.filter((row) => !row.revoked);
      if (live.length === 0) return { started: null, count: 0 };
      if (reason === 'exposed')
        return { started: this.closures.start(change, SYSTEM, live, { comment }), count: live.length };
      const of = live.map(({ id }) => id);
      const { counts } = await this.revocations.revoke(change, SYSTEM, of, { reason, comment });
      return { started: null, count: counts.tokens };
    });
    if (started) void this.closures.run(started.id);
    return count;
  }

  /** Those that exist, are not revoked, and can be narrowed, locked. */
  async lock(change: Change, ids: readonly string[]): Promise<TokenEntity[]> {
    if (ids.length === 0) return [];
    await lockRows(change, 'tokens', ids);
    return (await change.read<TokenEntity>(selectTokens(ids))).filter((row) => row.revokedAt === null);
  }

  /** Sets narrower bounds, and disables the token where asked. */
  narrow(
    change: Change,
    row: TokenEntity,
    bounds: Partial<TokenEntity> | null,
    isDisabled: boolean,
    comment: string,
  ): void {
    const disabled = isDisabled ? { disabledAt: new Date() } : {};
    change.write(update(TokenEntity, { id: row.id }, { ...bounds, ...disabled }));
    const fields = Object.keys(bounds ?? {});
    const details = { fields, comment };
    this.audit.recordAll(change, [
      ...(bounds ? [entryOf(SYSTEM, 'token.updated', row, details)] : []),
      ...(isDisabled ? [entryOf(SYSTEM, 'token.disabled', row, { comment })] : []),
    ]);
    if (isDisabled) change.write(markDescendants(row.id));
  }
}
