import { type Invalidation, type Receipt, type ReceiptChange, signReceipt } from '@latchkey/contracts';
import type { Logger } from '@latchkey/runtime';
import { Inject, Injectable } from '@nestjs/common';
import { CONFIG, LOGGER, type TokenServiceConfig } from '../config.js';
import { Database } from '../database/database.service.js';

/** The audit events written together with some invalidations. */
export type Changes = readonly ChangeRow[];

interface ChangeRow {
  id: string;
  action: string;
  at: Date;
  reason: string | null;
  token_id: string | null;
  subject_type: string;
  subject_id: string;
  project_id: string | null;
}

/** Most events of one change that are looked at; receipts beyond them are not signed. */
const EVENTS_MAX = 10_000;
/** Signatures made at a time, a few milliseconds' worth: nothing else is done meanwhile. */
const SIGNED_AT_ONCE = 100;

/**
 * In: transaction ids, and the time that they are about. Out: the audit events written by those transactions. Ids of
 * transactions come again in a database restored from a dump, hence the time.
 */
export const SELECT_CHANGES = `SELECT id, action, at, details->>'reason' AS reason, token_id, subject_type, subject_id, project_id
  FROM audit_events WHERE xid = ANY ($1::xid8[]) AND at BETWEEN $2::timestamptz - interval '1 day' AND $2::timestamptz + interval '1 day'
    AND subject_id IS NOT NULL
  ORDER BY id LIMIT ${EVENTS_MAX}`;

/** In: tokens, invalidations, and a receipt for each token. */
const KEEP = `UPDATE tokens t SET receipt = k.receipt FROM unnest($1::uuid[], $2::jsonb[]) AS k(id, receipt)
  WHERE t.id = k.id AND t.invalidation_id = ANY ($3) AND t.receipt IS NULL`;

/** Signs receipts by the key of the audit log, each about one audit event, and keeps them with their tokens. */
@Injectable()
export class ReceiptsService {
  /** Read once for the receipt that is answered and the ones that are kept. */
  readonly #known = new WeakMap<readonly Invalidation[], Promise<Changes>>();

  constructor(
    private readonly db: Database,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  /**
   * The audit events of committed invalidations. A failure leaves their receipts unsigned and says so in the log: a
   * revocation never waits for a signature, nor fails for want of one.
   */
  changes(invalidations: readonly Invalidation[]): Promise<Changes> {
    const known = this.#known.get(invalidations) ?? this.#read(invalidations);
    this.#known.set(invalidations, known);
    return known;
  }

  async #read(invalidations: readonly Invalidation[]): Promise<Changes> {
    if (!this.config.AUDIT_SIGNING_KEY || invalidations.length === 0) return [];
    const xids = [...new Set(invalidations.map(({ xid }) => xid))];
    try {
      return await this.db.prepared<ChangeRow>('receipt_changes', SELECT_CHANGES, [xids, timeOf(invalidations[0]!.id)]);
    } catch (error) {
      this.logger.warn({ reason: (error as Error).message }, 'a receipt is not signed: its change could not be read');
      return [];
    }
  }

  /** The receipt for whoever asked for the change: signed if the invalidations are about one thing. */
  signed(receipt: Receipt, invalidations: readonly Invalidation[], changes: Changes): Receipt {
    const [only, ...others] = invalidations;
    if (!only?.subject || others.length > 0) return receipt;
    return this.#about(receipt, changes, only.subject);
  }

  /**
   * Keeps a receipt with the tokens that it is about, each signed for its own end. Only while it is still of the last
   * change, which has a receipt of its own; of several that waited, the first.
   */
  async keep(receipt: Receipt, invalidations: readonly Invalidation[], tokenIds: readonly string[]): Promise<void> {
    const changes = await this.changes(invalidations);
    const ids = invalidations.map(({ id }) => id);
    for (let at = 0; at < tokenIds.length; at += SIGNED_AT_ONCE) {
      const some = tokenIds.slice(at, at + SIGNED_AT_ONCE);
      const receipts = some.map((id) => JSON.stringify(this.#about(receipt, changes, id)));
      await this.db.prepared('receipts-kept', KEEP, [some, receipts, ids]);
    }
  }

  #about(receipt: Receipt, changes: Changes, subject: string): Receipt {
    const key = this.config.AUDIT_SIGNING_KEY;
    const row = key && changeOf(changes, subject);
    return row ? signReceipt(key, receipt, toChange(row)) : receipt;
  }
}

/** The event that tells what became of a token, a person or a project: its end, if that is among them. */
function changeOf(changes: Changes, subject: string): ChangeRow | undefined {
  const about = (row: ChangeRow) => row.token_id === subject || row.subject_id === subject;
  return (
    changes.find((row) => row.action === 'token.revoked' && about(row)) ??
    changes.findLast(about) ??
    changes.findLast((row) => row.project_id === subject)
  );
}

const toChange = (row: ChangeRow): ReceiptChange => ({
  id: row.id,
  action: row.action,
  at: row.at.toISOString(),
  reason: row.reason,
  subject: { type: row.subject_type, id: row.subject_id },
});

/** When a UUIDv7 was made. */
const timeOf = (id: string) => new Date(Number.parseInt(id.replaceAll('-', '').slice(0, 12), 16)).toISOString();
