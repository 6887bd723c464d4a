import { createPublicKey, type KeyObject } from 'node:crypto';
import { type Invalidation, type Receipt, type ReceiptChange, signerOf, signReceipt } from '@latchkey/contracts';
import { type Logger, madeAtMs, newId } from '@latchkey/runtime';
import { Inject, Injectable } from '@nestjs/common';
import type { DataSource } from 'typeorm';
import { AuditService, type ChangeRow } from '../audit/index.js';
import { CONFIG, LOGGER, type TokenServiceConfig } from '../config.js';
import { Database, type Statement, together } from '../database/index.js';
import { type About, firstIdAt, insertReceipts, keepWithTokens, PRUNE_RECEIPTS } from './receipts.queries.js';

/** The audit events written together with some invalidations. */
export type Changes = readonly ChangeRow[];

/** Most events of one change that are looked at; receipts beyond them are not signed. */
const EVENTS_MAX = 10_000;
/**
 * Events and invalidation of one transaction are made within this time. What is further apart bears the same transaction id
 * in another history, before a backup was put back, and is read instead.
 */
const TOGETHER_MS = 1_000;
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

/** Keeps receipts, each under its id, and signs those that are about one audit event. */
@Injectable()
export class ReceiptsService {
  /** Read once for the receipt that is answered and the ones that are kept. */
  readonly #known = new WeakMap<readonly Invalidation[], Promise<Changes>>();

  constructor(
    private readonly db: Database,
    private readonly audit: AuditService,
    @Inject(CONFIG) private readonly config: TokenServiceConfig,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {
    const { RECEIPT_SIGNING_KEY: key } = config;
    if (!key) logger.warn('RECEIPT_SIGNING_KEY is not set: receipts are not signed');
    else logger.info({ signer: signerOf(key), publicKey: pemOf(key) }, 'receipts are signed by this key');
  }

  /** By which receipts are checked: the key that signs now, then earlier ones. */
  publicKeys(): KeyObject[] {
    const { RECEIPT_SIGNING_KEY: key, RECEIPT_RETIRED_KEYS: retired } = this.config;
    return [...(key ? [createPublicKey(key)] : []), ...retired];
  }

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
    if (!this.config.RECEIPT_SIGNING_KEY || invalidations.length === 0) return [];
    const xids = [...new Set(invalidations.map(({ xid }) => xid))];
    const written = xids.length === 1 ? this.audit.take(xids[0]!) : undefined;
    const atMs = madeAtMs(invalidations[0]!.id);
    if (written?.every(({ at }) => Math.abs(at.getTime() - atMs) <= TOGETHER_MS)) return written;
    try {
      return await this.db.prepared<ChangeRow>('receipt_changes', SELECT_CHANGES, [xids, new Date(atMs)]);
    } catch (error) {
      this.logger.warn({ reason: (error as Error).message }, 'a receipt is not signed: its change could not be read');
      return [];
    }
  }

  /** The receipt for whoever asked for the change: signed if the invalidations are about one thing. */
  signed(receipt: Receipt, invalidations: readonly Invalidation[], changes: Changes): Receipt {
    const subject = onlySubject(invalidations);
    return subject ? this.#about(receipt, changes, subject) : receipt;
  }

  /** Keeps a receipt under its id, in one statement with what else is to be written. */
  async keep(receipt: Receipt, about: About, also?: Statement): Promise<void> {
    const insert = insertReceipts([{ receipt, about }]);
    await (also ? this.#write('receipt-kept-also', together(also, insert)) : this.#write('receipt-kept', insert));
  }

  /**
   * Keeps it with the tokens that it is about too, each signed for its own end. Only while it is still of the last
   * change, which has a receipt of its own; of several that waited, the first. Resolves when the receipt itself is kept,
   * while those of many tokens are still being written.
   */
  async keepWithTokens(
    receipt: Receipt,
    invalidations: readonly Invalidation[],
    tokenIds: readonly string[],
  ): Promise<void> {
    if (tokenIds.length === 0) return;
    const changes = await this.changes(invalidations);
    const ids = invalidations.map(({ id }) => id);
    const whole = { receipt, about: { tokenIds } };
    const write = (at: number) => {
      const kept = tokenIds
        .slice(at, at + SIGNED_AT_ONCE)
        .map((id) => ({ id, receipt: this.#own(receipt, invalidations, changes, id) }));
      const own = kept.filter((one) => one.receipt.id !== receipt.id);
      const made = own.map((one) => ({ receipt: one.receipt, about: { tokenIds: [one.id] } }));
      return this.#write('receipts-kept', keepWithTokens(kept, ids, at === 0 ? [whole, ...made] : made));
    };
    const others = async () => {
      for (let at = SIGNED_AT_ONCE; at < tokenIds.length; at += SIGNED_AT_ONCE) await write(at);
    };
    await write(0);
    others().catch((error: Error) => this.logger.warn({ reason: error.message }, 'receipts of tokens were not kept'));
  }

  /**
   * Removes the oldest that were made before a moment, at most `limit`.
   * @param retention PostgreSQL as the role latchkey_retention
   * @returns how many went
   */
  async prune(retention: DataSource, before: Date, limit: number): Promise<number> {
    const [, removed] = (await retention.query(PRUNE_RECEIPTS, [limit, firstIdAt(before)])) as [unknown[], number];
    return removed;
  }

  /** A token's: another one than that of the whole, unless it is that, or cannot be signed. */
  #own(receipt: Receipt, invalidations: readonly Invalidation[], changes: Changes, tokenId: string): Receipt {
    if (onlySubject(invalidations) === tokenId) return receipt;
    const own = this.#about({ ...receipt, id: newId() }, changes, tokenId);
    return own.signature === undefined || own.signature === receipt.signature ? receipt : own;
  }

  async #write(name: string, [text, values = []]: Statement): Promise<void> {
    await this.db.prepared(name, text, values);
  }

  #about(receipt: Receipt, changes: Changes, subject: string): Receipt {
    const key = this.config.RECEIPT_SIGNING_KEY;
    const row = key && changeOf(changes, subject);
    return row ? signReceipt(key, receipt, toChange(row)) : receipt;
  }
}

/** What they are about, if that is one thing. */
function onlySubject([only, ...others]: readonly Invalidation[]): string | undefined {
  return others.length === 0 ? only?.subject : undefined;
}

const pemOf = (key: KeyObject) => createPublicKey(key).export({ type: 'spki', format: 'pem' }).toString();

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
