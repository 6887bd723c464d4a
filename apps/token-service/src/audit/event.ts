import { type AuditAction, type AuditEvent, type Checkpoint, signerOfSpki } from '@latchkey/contracts';
import { type AuditRow, EVENT_COLUMNS } from '@latchkey/runtime';
import { Column, Entity, PrimaryColumn } from 'typeorm';
import type { Change } from '../database/index.js';

/** An audit event as stored. */
@Entity({ name: 'audit_events' })
export class AuditEventEntity {
  @PrimaryColumn({ type: 'uuid' }) id!: string;
  @PrimaryColumn({ type: 'timestamptz' }) at!: Date;
  @Column({ type: 'text' }) actor_type!: AuditEvent['actor']['type'];
  @Column({ type: 'uuid', nullable: true }) actor_id!: string | null;
  @Column({ type: 'text' }) actor_name!: string;
  @Column({ type: 'text' }) action!: AuditAction;
  @Column({ type: 'uuid', nullable: true }) token_id!: string | null;
  @Column({ type: 'uuid', nullable: true }) project_id!: string | null;
  @Column({ type: 'text', nullable: true }) subject_type!: NonNullable<AuditEvent['subject']>['type'] | null;
  @Column({ type: 'text', nullable: true }) subject_id!: string | null;
  @Column({ type: 'text', nullable: true }) subject_name!: string | null;
  @Column({ type: 'text', nullable: true }) ip!: string | null;
  @Column({ type: 'text', nullable: true }) user_agent!: string | null;
  @Column({ type: 'text', nullable: true }) request_id!: string | null;
  @Column({ type: 'jsonb' }) details!: Record<string, unknown>;
}

/** The place of an event that has none. */
export const NO_LINK = 'SELECT NULL::bigint AS seq, NULL::bytea AS hash';

/** A row of audit_checkpoints. */
export interface CheckpointRow {
  seq: string;
  hash: Buffer;
  at: Date;
  kind: Checkpoint['kind'];
  public_key: string;
  signature: Buffer;
}

export const CHECKPOINT_COLUMNS = 'seq, hash, at, kind, public_key, signature';

/** The id of its key is computed from the key, not read. */
export function toCheckpoint(row: CheckpointRow): Checkpoint {
  return {
    seq: Number(row.seq),
    hash: row.hash.toString('hex'),
    at: row.at.toISOString(),
    kind: row.kind,
    keyId: signerOfSpki(row.public_key),
    signature: row.signature.toString('base64url'),
  };
}

/** A transaction for reading. */
export type Reading = Pick<Change, 'read'>;

/** A place of the chain with its event; null when the event is missing. */
export interface ChainLink {
  seq: number;
  hash: string;
  row: AuditRow | null;
}

/**
 * The next places of the chain with their events, at most `limit`. Two statements, each planned to read no more than it
 * returns: one join may read the events of all months for every page.
 */
export async function chainPage(reading: Reading, after: number, limit: number): Promise<ChainLink[]> {
  const links = await reading.read<{ seq: string; event_id: string; event_at: Date; hash: Buffer }>([
    'SELECT seq, event_id, event_at, hash FROM audit_links WHERE seq > $1 ORDER BY seq LIMIT $2',
    [after, limit],
  ]);
  if (links.length === 0) return [];
  const times = links.map((link) => link.event_at.getTime());
  const found = await reading.read<AuditRow>([
    `SELECT ${EVENT_COLUMNS} FROM audit_events e LEFT JOIN LATERAL (${NO_LINK}) l ON true
     WHERE e.id = ANY ($1::uuid[]) AND e.at BETWEEN $2 AND $3`,
    [links.map((link) => link.event_id), new Date(Math.min(...times)), new Date(Math.max(...times))],
  ]);
  const byId = new Map(found.map((row) => [row.id, row]));
  return links.map(({ seq, event_id, event_at, hash }) => {
    const event = byId.get(event_id);
    const row = event && event.at.getTime() === event_at.getTime() ? { ...event, seq, hash } : null;
    return { seq: Number(seq), hash: hash.toString('hex'), row };
  });
}
