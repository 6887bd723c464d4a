import { createPublicKey, type KeyObject } from 'node:crypto';
import { appendFile } from 'node:fs/promises';
import {
  ADVISORY_LOCKS,
  CHAIN_START,
  type ChainVerdict,
  type Checkpoint,
  chainHash,
  type ExportedCheckpoint,
  signCheckpoint,
  signerOf,
} from '@latchkey/contracts';
import { type AuditRow, EVENT_COLUMNS, type Logger, toEvent } from '@latchkey/runtime';
import type { DataSource } from 'typeorm';
import type { TokenServiceConfig } from '../config.js';
import type { Change, Database } from '../database/index.js';
import { CHECKPOINT_COLUMNS, type CheckpointRow, NO_LINK, type Reading, toCheckpoint } from './event.js';
import { type ExportFormat, LINES, type Pages } from './lines.js';
import { proveChain } from './proof.js';

/** Lines of an export that are read at a time. */
const EXPORT_PAGE = 1_000;
/** Most unsealed events that an export contains after the chain. */
const WAITING_MAX = 10_000;

export interface ChainOptions {
  /** Ed25519, private. Without it the chain is linked but never signed. */
  signingKey?: KeyObject | undefined;
  /** Public keys of earlier signing keys, whose checkpoints are still trusted. */
  retiredKeys?: readonly KeyObject[];
  /** Longest time between checkpoints while there is something to sign, in milliseconds. Default 5,000. */
  checkpointEveryMs?: number;
  /** Most events between checkpoints. Default 1,000. */
  checkpointEveryEvents?: number;
  /** File outside the database to which every checkpoint is appended as a line of JSON. */
  checkpointFile?: string | undefined;
}

/**
 * The hash chain over the audit log. Events are written with their changes, without a link; sealing links them afterwards, so
 * that no change waits for the head of the chain.
 */
export class AuditChain {
  private readonly options: Required<Omit<ChainOptions, 'signingKey' | 'checkpointFile'>> & ChainOptions;
  private restoreWasHandled = false;
  /** The newest checkpoint that this process has seen: a chain that no longer reaches it was truncated. */
  private newest: Checkpoint | undefined;
  private verifying: Promise<ChainVerdict> | undefined;

  constructor(
    private readonly db: Database,
    private readonly logger: Logger,
    options: ChainOptions,
  ) {
    this.options = { retiredKeys: [], checkpointEveryMs: 5_000, checkpointEveryEvents: 1_000, ...options };
  }

  get trustedKeys(): KeyObject[] {
    const { signingKey, retiredKeys } = this.options;
    return [...(signingKey ? [createPublicKey(signingKey)] : []), ...retiredKeys];
  }

  /**
   * Links at most `limit` events that are not in the chain yet, in the order of the transactions that wrote them, and
   * signs a checkpoint when one is due. One process at a time seals; the others do nothing. An event is sealed only when
   * every transaction as old as its own has ended, so that no later event belongs before a sealed one.
   */
  async seal(limit: number): Promise<{ done: number; more: boolean }> {
    const { done, checkpoint } = await this.db.change(async (change) => {
      const locking = 'SELECT pg_try_advisory_xact_lock($1) AS taken';
      const [lock] = await change.read<{ taken: boolean }>([locking, [ADVISORY_LOCKS.auditSealing]]);
      if (!lock?.taken) return { done: 0, checkpoint: undefined };
      const head = await this.head(change);
      const events = await this.unsealed(change, head, limit);
      const place = this.link(change, head, events);
      return { done: events.length, checkpoint: await this.signWhenDue(change, place) };
    });
    if (checkpoint) await this.publish(checkpoint);
    return { done, more: done === limit };
  }

  /** Verifies the whole chain as it is now. Concurrent calls share one verification. */
  verify(): Promise<ChainVerdict> {
    this.verifying ??= proveChain(this.db, this.trustedKeys, this.options.checkpointFile, this.newest).finally(() => {
      this.verifying = undefined;
    });
    return this.verifying;
  }

  /**
   * The whole chain in its order, then what is not sealed yet, as lines, in pages that are read on demand. In NDJSON the
   * lines contain the checkpoints that prove them.
   */
  async *export(format: ExportFormat): Pages {
    const { sql } = LINES[format];
    const [end] = await this.db.query<{ seq: string }>('SELECT coalesce(max(seq), 0) AS seq FROM audit_links');
    for (let after = 0; ; ) {
      const page = await this.db.query<{ seq: string; line: string | null }>(
        // A subselect reads one event at a time; a join may read the events of all months for every page.
        `SELECT l.seq, (SELECT ${sql} FROM audit_events e WHERE e.id = l.event_id AND e.at = l.event_at) AS line
         FROM audit_links l WHERE l.seq > $1 AND l.seq <= $2 ORDER BY l.seq LIMIT ${EXPORT_PAGE}`,
        [after, end!.seq],
      );
      const last = page.at(-1);
      if (!last) break;
      const places = page.flatMap(({ seq, line }) => (line === null ? [] : [{ seq: Number(seq), line }]));
      if (format === 'ndjson')
        addCheckpoints(places, await this.checkpointsFor(Number(page[0]!.seq), Number(last.seq), after === 0));
      if (places.length > 0) yield places.map(({ line }) => line);
      after = Number(last.seq);
    }
    const waiting = await this.db.change(async (change) =>
      this.unsealed(change, await this.head(change), WAITING_MAX, false),
    );
    if (waiting.length === 0) return;
    const lines = await this.db.query<{ line: string }>(
      `SELECT ${sql} AS line FROM unnest($1::uuid[], $2::timestamptz[]) WITH ORDINALITY AS w(id, at, n)
       JOIN audit_events e ON e.id = w.id AND e.at = w.at LEFT JOIN LATERAL (${NO_LINK}) l ON true ORDER BY w.n`,
      [waiting.map(({ id }) => id), waiting.map(({ at }) => at)],
    );
    yield lines.map(({ line }) => line);
  }

  /**
   * Removes the oldest part of the chain up to the last event before a moment, and stores a signed checkpoint of kind
   * `retired`, from which the rest is proven.
   * @param retention PostgreSQL as the role latchkey_retention
   * @returns how many events were removed
   * @throws Error without a signing key
   */
  async retire(retention: DataSource, before: Date): Promise<number> {
    const key = this.options.signingKey;
    if (!key) throw new Error('AUDIT_SIGNING_KEY is not set: without it the removal of events cannot be proven');
    const [last] = await this.db.query<{ seq: string; hash: Buffer }>(
      `SELECT seq, hash FROM audit_links WHERE seq = (
         SELECT coalesce((SELECT seq FROM audit_links WHERE event_at >= $1 ORDER BY seq LIMIT 1),
           (SELECT max(seq) FROM audit_links)) - 1)`,
      [before],
    );
    if (last) {
      const checkpoint = this.sign(key, { seq: Number(last.seq), hash: last.hash.toString('hex') }, 'retired');
      await this.db.change(async (change) => this.store(change, checkpoint, key));
      await this.publish(checkpoint);
    }
    const [removed] = (await retention.query('SELECT audit_retire() AS events')) as { events: string }[];
    return Number(removed!.events);
  }

  private async head(reading: Reading): Promise<Head> {
    const [row] = await reading.read<{ seq: string; hash: Buffer; xid: string | null }>([
      `SELECT l.seq, l.hash, e.xid FROM audit_links l LEFT JOIN audit_events e ON e.id = l.event_id AND e.at = l.event_at
       ORDER BY l.seq DESC LIMIT 1`,
    ]);
    if (!row) return { seq: 0, hash: CHAIN_START, xid: '0' };
    return { seq: Number(row.seq), hash: row.hash.toString('hex'), xid: row.xid ?? '0' };
  }

  /**
   * In: the chain's head. Out: events past it whose transactions have all ended, in the order of transaction and id.
   *
   * Transaction ids restart in a database restored from a dump. Rows at or past the snapshot's end can only be from before
   * the restore: they are taken once, at this process's first sealing, and a head among them has no order with new events.
   */
  private async unsealed(reading: Reading, head: Head, limit: number, ended = true): Promise<AuditRow[]> {
    const select = (where: string, values: unknown[]): Promise<AuditRow[]> =>
      reading.read([
        // A plain anti-join may be planned as a scan of the whole chain; a subselect reads one event at a time.
        `SELECT ${EVENT_COLUMNS} FROM audit_events e LEFT JOIN LATERAL (${NO_LINK}) l ON true
         WHERE ${where} AND (SELECT true FROM audit_links k WHERE k.event_id = e.id) IS NULL
         ORDER BY e.xid, e.id LIMIT $1`,
        [limit, ...values],
      ]);
    const before: AuditRow[] = [];
    if (ended && !this.restoreWasHandled) {
      const older = await select('e.xid >= pg_snapshot_xmax(pg_current_snapshot())', []);
      if (older.length === limit) return older;
      this.restoreWasHandled = older.length === 0;
      before.push(...older);
    }
    const newer = await select(
      `e.xid >= (SELECT CASE WHEN $2::xid8 >= pg_snapshot_xmax(pg_current_snapshot()) THEN '0'::xid8 ELSE $2::xid8 END)
       ${ended ? 'AND e.xid < pg_snapshot_xmin(pg_current_snapshot())' : ''}`,
      [head.xid],
    );
    return [...before, ...newer].slice(0, limit);
  }

  private link(change: Change, head: Head, events: readonly AuditRow[]): Place {
    let { seq, hash } = head;
    if (events.length === 0) return { seq, hash };
    const hashes = events.map((row) => {
      hash = chainHash(hash, toEvent(row));
      return hash;
    });
    change.write([
      `INSERT INTO audit_links (seq, event_id, event_at, hash)
       SELECT $1::bigint + n, id, at, decode(hash, 'hex')
       FROM unnest($2::uuid[], $3::timestamptz[], $4::text[]) WITH ORDINALITY AS l(id, at, hash, n)`,
      [seq, events.map((e) => e.id), events.map((e) => e.at.toISOString()), hashes],
    ]);
    seq += events.length;
    return { seq, hash };
  }

  private async signWhenDue(change: Change, place: Place): Promise<Checkpoint | undefined> {
    const { signingKey, checkpointEveryEvents, checkpointEveryMs } = this.options;
    if (!signingKey || place.seq === 0) return undefined;
    const [last] = await change.read<{ seq: string; at: Date }>([
      'SELECT seq, at FROM audit_checkpoints ORDER BY seq DESC, kind DESC LIMIT 1',
    ]);
    const unsigned = place.seq - Number(last?.seq ?? 0);
    if (unsigned <= 0) return undefined;
    const ageMs = last ? Date.now() - last.at.getTime() : Number.POSITIVE_INFINITY;
    // A clock that was set back must not delay signing.
    if (unsigned < checkpointEveryEvents && ageMs >= 0 && ageMs < checkpointEveryMs) return undefined;
    const checkpoint = this.sign(signingKey, place, 'sealed');
    this.store(change, checkpoint, signingKey);
    return checkpoint;
  }

  private sign(key: KeyObject, place: Place, kind: Checkpoint['kind']): Checkpoint {
    return signCheckpoint(key, { ...place, at: new Date().toISOString(), kind });
  }

  private store(change: Change, checkpoint: Checkpoint, key: KeyObject): void {
    const spki = createPublicKey(key).export({ type: 'spki', format: 'der' }).toString('base64');
    change.write([
      `INSERT INTO audit_checkpoints (seq, hash, at, kind, public_key, signature)
       VALUES ($1, decode($2, 'hex'), $3, $4, $5, $6) ON CONFLICT (seq, kind) DO NOTHING`,
      [
        checkpoint.seq,
        checkpoint.hash,
        checkpoint.at,
        checkpoint.kind,
        spki,
        Buffer.from(checkpoint.signature, 'base64url'),
      ],
    ]);
  }

  /** Writes a committed checkpoint to the log and the file, which the database's administrator may not control. */
  private async publish(checkpoint: Checkpoint): Promise<void> {
    this.newest = checkpoint;
    // As text: the logger redacts fields of an object that are named like a hash.
    this.logger.info({ checkpoint: JSON.stringify(checkpoint) }, 'audit checkpoint');
    if (!this.options.checkpointFile) return;
    try {
      await appendFile(this.options.checkpointFile, `${JSON.stringify(checkpoint)}\n`, { mode: 0o600 });
    } catch (error) {
      this.logger.error(
        { file: this.options.checkpointFile, reason: (error as NodeJS.ErrnoException).code },
        'writing a checkpoint to AUDIT_CHECKPOINT_FILE failed: a truncation after the checkpoint before it could go unnoticed',
      );
    }
  }

  /** The checkpoints of these places; at the start of a chain whose oldest part was removed, also the one before them. */
  private async checkpointsFor(from: number, to: number, first: boolean): Promise<ExportedCheckpoint[]> {
    const found = await this.db.query<CheckpointRow>(
      `SELECT ${CHECKPOINT_COLUMNS} FROM audit_checkpoints
       WHERE (seq BETWEEN $1::bigint AND $2) OR ($3 AND seq = $1::bigint - 1 AND kind = 'retired') ORDER BY seq, kind`,
      [from, to, first],
    );
    return found.map((row) => ({ ...toCheckpoint(row), publicKey: row.public_key }));
  }
}

interface Place {
  seq: number;
  hash: string;
}
interface Head extends Place {
  xid: string;
}

/** Adds each checkpoint to the line of its event; one from before the first, to the first. */
function addCheckpoints(places: { seq: number; line: string }[], checkpoints: readonly ExportedCheckpoint[]): void {
  const bySeq = Map.groupBy(checkpoints, (c) => Math.max(c.seq, places[0]?.seq ?? 0));
  for (const place of places) {
    const own = bySeq.get(place.seq);
    if (own) place.line = `${place.line.slice(0, -1)},"checkpoints":${JSON.stringify(own)}}`;
  }
}

/** The chain according to the settings. Logs the public key, for those who verify an export. */
export function auditChainOf(db: Database, config: TokenServiceConfig, logger: Logger): AuditChain {
  const { AUDIT_SIGNING_KEY: signingKey } = config;
  if (signingKey) {
    const publicKey = createPublicKey(signingKey).export({ type: 'spki', format: 'pem' }).toString();
    logger.info({ signer: signerOf(signingKey), publicKey }, 'audit checkpoints are signed by this key');
  } else logger.warn('AUDIT_SIGNING_KEY is not set: the audit log is chained, but no checkpoint of it is signed');
  return new AuditChain(db, logger, {
    signingKey,
    retiredKeys: config.AUDIT_RETIRED_KEYS,
    checkpointEveryMs: config.AUDIT_CHECKPOINT_SECONDS * 1_000,
    checkpointEveryEvents: config.AUDIT_CHECKPOINT_EVENTS,
    checkpointFile: config.AUDIT_CHECKPOINT_FILE,
  });
}
