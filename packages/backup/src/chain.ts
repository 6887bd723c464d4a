import { createPublicKey } from 'node:crypto';
import { ChainProver, type ChainVerdict, type Checkpoint, signerOfSpki } from '@latchkey/contracts';
import { type AuditRow, EVENT_COLUMNS, toEvent } from '@latchkey/runtime';
import type { Client } from 'pg';

const PAGE = 2_000;

interface CheckpointRow {
  seq: string;
  hash: Buffer;
  at: Date;
  kind: Checkpoint['kind'];
  public_key: string;
  signature: Buffer;
}

const CHECKPOINTS = 'SELECT seq, hash, at, kind, public_key, signature FROM audit_checkpoints';
/** A lateral read finds one event at a time; a join may read those of all months. */
const LINKS = `
SELECT ${EVENT_COLUMNS} FROM audit_links l
LEFT JOIN LATERAL (SELECT * FROM audit_events a WHERE a.id = l.event_id AND a.at = l.event_at) e ON true
WHERE l.seq > $1 ORDER BY l.seq LIMIT ${PAGE}`;

/** What was found, and the last event that is proven. */
export type ProvenChain = ChainVerdict & { head: { seq: number; hash: string } };

/**
 * Verifies the audit chain of a restored database: every link, and every checkpoint by the key that is stored beside it.
 * Whether those keys are one's own, the token-service verifies by its settings.
 */
export async function verifyChain(db: Client): Promise<ProvenChain> {
  const keys = await db.query<{ key: string }>('SELECT DISTINCT public_key AS key FROM audit_checkpoints');
  const prover = new ChainProver(
    keys.rows.map(({ key }) => createPublicKey({ key: Buffer.from(key, 'base64'), format: 'der', type: 'spki' })),
  );
  let after = await start(db, prover);
  for (let more = true; more && !prover.failed; ) {
    const links = (await db.query<AuditRow & { seq: string; hash: Buffer }>(LINKS, [after])).rows;
    more = links.length === PAGE;
    const until = more ? links.at(-1)!.seq : null;
    const within = `${CHECKPOINTS} WHERE seq > $1 AND ($2::bigint IS NULL OR seq <= $2) ORDER BY seq, kind`;
    const checkpoints = (await db.query<CheckpointRow>(within, [after, until])).rows.map(toCheckpoint);
    for (const row of links) {
      after = Number(row.seq);
      prover.link(after, row.hash.toString('hex'), row.id === null ? null : toEvent(row));
      while (checkpoints[0] && checkpoints[0].seq <= after) prover.checkpoint(checkpoints.shift()!);
    }
    for (const checkpoint of checkpoints) prover.checkpoint(checkpoint);
  }
  const { seq, hash } = prover.head;
  return { ...prover.end(), head: { seq, hash } };
}

/** The place before the first link: 0, or the one that retention has signed. */
async function start(db: Client, prover: ChainProver): Promise<number> {
  const [first] = (await db.query<{ seq: string | null }>('SELECT min(seq) AS seq FROM audit_links')).rows;
  if (first!.seq === '1') return 0;
  const newest = `${CHECKPOINTS} WHERE kind = 'retired' ORDER BY seq DESC LIMIT 1`;
  const [retired] = (await db.query<CheckpointRow>(newest)).rows;
  if (!retired) return 0;
  prover.startFrom(toCheckpoint(retired));
  return Number(retired.seq);
}

const toCheckpoint = (row: CheckpointRow): Checkpoint => ({
  seq: Number(row.seq),
  hash: row.hash.toString('hex'),
  at: row.at.toISOString(),
  kind: row.kind,
  keyId: signerOfSpki(row.public_key),
  signature: row.signature.toString('base64url'),
});
