import { type Checkpoint, signerOfSpki } from '@latchkey/contracts';
import { type AuditRow, EVENT_COLUMNS } from '@latchkey/runtime';

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

/** The name of its key is worked out anew, not believed. */
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

/** A place of the chain with its event; null when the event is gone. */
export interface ChainLink {
  seq: number;
  hash: string;
  row: AuditRow | null;
}

type Query = (sql: string, values: unknown[]) => Promise<unknown>;

/**
 * The next places of the chain with their events, at most `limit`, up to `through`. Two statements, each with one plan
 * that reads as much as it answers: joined in one, the events of all months may be read for every page.
 */
export async function chainPage(query: Query, after: number, through: number, limit: number): Promise<ChainLink[]> {
  const links = (await query(
    'SELECT seq, event_id, event_at, hash FROM audit_links WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3',
    [after, through, limit],
  )) as { seq: string; event_id: string; event_at: Date; hash: Buffer }[];
  if (links.length === 0) return [];
  const times = links.map((link) => link.event_at.getTime());
  const found = (await query(
    `SELECT ${EVENT_COLUMNS} FROM audit_events e LEFT JOIN LATERAL (${NO_LINK}) l ON true
     WHERE e.id = ANY ($1::uuid[]) AND e.at BETWEEN $2 AND $3`,
    [links.map((link) => link.event_id), new Date(Math.min(...times)), new Date(Math.max(...times))],
  )) as AuditRow[];
  const byId = new Map(found.map((row) => [row.id, row]));
  return links.map(({ seq, event_id, event_at, hash }) => {
    const event = byId.get(event_id);
    const row = event && event.at.getTime() === event_at.getTime() ? { ...event, seq, hash } : null;
    return { seq: Number(seq), hash: hash.toString('hex'), row };
  });
}
