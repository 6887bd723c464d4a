import { createPublicKey, type KeyObject } from 'node:crypto';
import { type Invalidation, type Receipt, type ReceiptChange, signerOf, signReceipt } from '@latchkey/contracts';
import { type Logger, madeAtMs, newId } from '@latchkey/runtime';
import { Inject, Injectable } from '@nestjs/common';
import type { DataSource } from 'typeorm';
import { AuditService, type ChangeRow } from '../audit/index.js';
import { CONFIG, LOGGER, type TokenServiceConfig } from '../config.js';
import { Database, type Statement, together } from '../database/index.js';
import { type About, firstIdAt, insertReceipts, PRUNE_RECEIPTS, storeWithTokens } from './receipts.queries.js';

/** The audit events written together with some invalidations. */
export type Changes = readonly ChangeRow[];

/** Most events of one change that are read; receipts beyond them are not signed. */
const EVENTS_MAX = 10_000;
/**
 * Events and invalidation of one transaction are created within this time. What is further apart has the same transaction
 * id from another history, before a backup was restored, and is read instead.
 */
const TOGETHER_MS = 1_000;
/** Signatures made in one go: a few milliseconds, during which the event loop is blocked. */
const SIGNED_AT_ONCE = 100;

/**
 * In: transaction ids, and their approximate time. Out: the audit events written by those transactions. Transaction ids
 * repeat in a database restored from a dump, hence the time.
 */
export const SELECT_CHANGES = `SELECT id, action, at, details->>'reason' AS reason, token_id, subject_type, subject_id, project_id
  FROM audit_events WHERE xid = ANY ($1::xid8[]) AND at BETWEEN $2::timestamptz - interval '1 day' AND $2::timestamptz + interval '1 day'
    AND subject_id IS NOT NULL
  ORDER BY id LIMIT ${EVENTS_MAX}`;

/** In: token ids. Out: the audit event of the latest revocation of each. */
export const SELECT_REVOCATIONS = `SELECT DISTINCT ON (token_id) id, action, at, details->>'reason' AS reason, token_id, subject_type,
    subject_id, project_id
  FROM audit_events WHERE token_id = ANY ($1::uuid[]) AND action = 'token.revoked' AND subject_id IS NOT NULL
  ORDER BY token_id, at DESC, id DESC`;

/** Stores receipts, each under its id, and signs those that are about one audit event. */
@Injectable()
export class ReceiptsService {
  /** Read once for the receipt that is returned and those that are stored. */
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

  /** Keys that verify receipts: that of the current signing key, then earlier ones. */
  publicKeys(): KeyObject[] {
    const { RECEIPT_SIGNING_KEY: key, RECEIPT_RETIRED_KEYS: retired } = this.config;
    return [...(key ? [createPublicKey(key)] : []), ...retired];
  }

  /**
   * The audit events of committed invalidations. A failure is logged and leaves their receipts unsigned: a revocation
   * never waits for a signature, nor fails for lack of one.
   */
  changes(invalidations: readonly Invalidation[]): Promise<Changes> {
    const known = this.#known.get(invalidations) ?? this.#read(invalidations);
    this.#known.set(invalidations, known);
    return known;
  }

  async #read(invalidations: readonly Invalidation[]): Promise<Changes> {
    if (!this.config.RECEIPT_SIGNING_KEY || invalidations.length === 0) return [];
    try {
      const changes = await this.#together(invalidations);
      // Tokens that were revoked earlier and are confirmed only now have no event in this transaction.
      const repeated = invalidations.filter(({ kind, subject }) => kind === 'token' && !changeOf(changes, subject));
      if (repeated.length === 0) return changes;
      const tokenIds = repeated.slice(0, EVENTS_MAX).map(({ subject }) => subject);
      return [
        ...changes,
        ...(await this.db.prepared<ChangeRow>('receipt_revocations', SELECT_REVOCATIONS, [tokenIds])),
      ];
    } catch (error) {
      this.logger.warn({ reason: (error as Error).message }, 'a receipt is not signed: reading its change failed');
      return [];
    }
  }

  /** The audit events of the transactions that wrote them. */
  async #together(invalidations: readonly Invalidation[]): Promise<Changes> {
    const xids = [...new Set(invalidations.map(({ xid }) => xid))];
    const written = xids.length === 1 ? this.audit.take(xids[0]!) : undefined;
    const atMs = madeAtMs(invalidations[0]!.id);
    if (written?.every(({ at }) => Math.abs(at.getTime() - atMs) <= TOGETHER_MS)) return written;
    return this.db.prepared<ChangeRow>('receipt_changes', SELECT_CHANGES, [xids, new Date(atMs)]);
  }

  /** The receipt for the caller who made the change: signed if the invalidations have one subject. */
  signed(receipt: Receipt, invalidations: readonly Invalidation[], changes: Changes): Receipt {
    const subject = onlySubject(invalidations);
    return subject ? this.#about(receipt, changes, subject) : receipt;
  }

  /** Stores a receipt under its id, in one statement with `also`. */
  async store(receipt: Receipt, about: About, also?: Statement): Promise<void> {
    const insert = insertReceipts([{ receipt, about }]);
    await (also ? this.#write('receipt-kept-also', together(also, insert)) : this.#write('receipt-kept', insert));
  }

  /**
   * Stores it with its tokens too, each copy signed for that token's own revocation. A token gets it only while this is
   * its last change; of several receipts of one change, the first. Resolves when the receipt itself is stored, while those of
   * many tokens are still being written.
   */
  async storeWithTokens(
    receipt: Receipt,
    invalidations: readonly Invalidation[],
    tokenIds: readonly string[],
  ): Promise<void> {
    if (tokenIds.length === 0) return;
    const changes = await this.changes(invalidations);
    const ids = invalidations.map(({ id }) => id);
    const whole = { receipt, about: { tokenIds } };
    const write = (at: number) => {
      const ofTokens = tokenIds
        .slice(at, at + SIGNED_AT_ONCE)
        .map((id) => ({ id, receipt: this.#own(receipt, invalidations, changes, id) }));
      const own = ofTokens.filter((one) => one.receipt.id !== receipt.id);
      const added = own.map((one) => ({ receipt: one.receipt, about: { tokenIds: [one.id] } }));
      return this.#write('receipts-kept', storeWithTokens(ofTokens, ids, at === 0 ? [whole, ...added] : added));
    };
    const others = async () => {
      for (let at = SIGNED_AT_ONCE; at < tokenIds.length; at += SIGNED_AT_ONCE) await write(at);
    };
    await write(0);
    others().catch((error: Error) => this.logger.warn({ reason: error.message }, 'storing receipts of tokens failed'));
  }

  /**
   * Removes the oldest receipts created before a moment, at most `limit`.
   * @param retention PostgreSQL as the role latchkey_retention
   * @returns how many were removed
   */
  async prune(retention: DataSource, before: Date, limit: number): Promise<number> {
    const [, removed] = (await retention.query(PRUNE_RECEIPTS, [limit, firstIdAt(before)])) as [unknown[], number];
    return removed;
  }

  /** A token's own receipt; the one of the whole if that is about this token alone or the own one cannot be signed. */
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

/** Their subject, if there is only one. */
function onlySubject([only, ...others]: readonly Invalidation[]): string | undefined {
  return others.length === 0 ? only?.subject : undefined;
}

const pemOf = (key: KeyObject) => createPublicKey(key).export({ type: 'spki', format: 'pem' }).toString();

/** The event about a token, a person or a project: a token's revocation, if it is among them. */
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
