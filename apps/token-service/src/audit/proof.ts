import type { KeyObject } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { ChainProver, type ChainVerdict, type Checkpoint, checkpointSchema } from '@latchkey/contracts';
import { toEvent } from '@latchkey/runtime';
import type { Database } from '../database/index.js';
import { CHECKPOINT_COLUMNS, type CheckpointRow, chainPage, type Reading, toCheckpoint } from './event.js';

const PAGE = 2_000;

/**
 * Verifies the chain in PostgreSQL in one snapshot: every link against its event and the link before, every checkpoint, that
 * no event is missing from the chain, and that the chain reaches the newest checkpoint known outside the database.
 */
export async function proveChain(
  db: Database,
  keys: readonly KeyObject[],
  checkpointFile: string | undefined,
  newest: Checkpoint | undefined,
): Promise<ChainVerdict> {
  // Read before the snapshot, which then contains everything sealed by that time.
  const outside = [...(await newestInFile(checkpointFile)), ...(newest ? [newest] : [])];
  const prover = new ChainProver(keys);
  return db.snapshot(async (snapshot) => {
    const first = await start(snapshot, prover);
    await walk(snapshot, prover, first);
    if (!prover.failed) await findUnlinked(snapshot, prover);
    for (const checkpoint of outside) {
      const sql = 'SELECT hash FROM audit_links WHERE seq = $1';
      const [link] = await snapshot.read<{ hash: Buffer }>([sql, [checkpoint.seq]]);
      prover.outside(checkpoint, link?.hash.toString('hex'));
    }
    return prover.end();
  });
}

/** @returns the place before the chain's first: 0, or the place that retention has signed */
async function start(snapshot: Reading, prover: ChainProver): Promise<number> {
  const [first] = await snapshot.read<{ seq: string | null }>(['SELECT min(seq) AS seq FROM audit_links']);
  if (first?.seq === '1') return 0;
  const [retired] = await snapshot.read<CheckpointRow>([
    `SELECT ${CHECKPOINT_COLUMNS} FROM audit_checkpoints
     WHERE kind = 'retired' AND ($1::bigint IS NULL OR seq = $1::bigint - 1) ORDER BY seq DESC LIMIT 1`,
    [first?.seq ?? null],
  ]);
  if (!retired) return 0;
  prover.startFrom(toCheckpoint(retired));
  return Number(retired.seq);
}

async function walk(snapshot: Reading, prover: ChainProver, start: number): Promise<void> {
  let after = start;
  for (;;) {
    const links = await chainPage(snapshot, after, PAGE);
    const last = links.at(-1);
    const checkpoints = await snapshot.read<CheckpointRow>([
      `SELECT ${CHECKPOINT_COLUMNS} FROM audit_checkpoints
       WHERE seq > $1 AND ($2::bigint IS NULL OR seq <= $2) ORDER BY seq, kind`,
      [after, last?.seq ?? null],
    ]);
    let next = 0;
    const checkpointsUpTo = (seq: number) => {
      for (let row = checkpoints[next]; row && Number(row.seq) <= seq; row = checkpoints[++next])
        prover.checkpoint(toCheckpoint(row));
    };
    for (const { seq, hash, row } of links) {
      prover.link(seq, hash, row && toEvent(row));
      checkpointsUpTo(seq);
      if (prover.failed) return;
    }
    checkpointsUpTo(Number.POSITIVE_INFINITY);
    if (!last || prover.failed) return;
    after = last.seq;
  }
}

/** An event that is older than sealed ones and has no link was not inserted by the service. */
async function findUnlinked(snapshot: Reading, prover: ChainProver): Promise<void> {
  const [stray] = await snapshot.read<{ id: string; at: Date }>([
    `SELECT e.id, e.at FROM audit_events e
     WHERE e.xid < (SELECT h.xid FROM audit_links l JOIN audit_events h ON h.id = l.event_id AND h.at = l.event_at
       ORDER BY l.seq DESC LIMIT 1)
       AND NOT EXISTS (SELECT FROM audit_links l WHERE l.event_id = e.id) LIMIT 1`,
  ]);
  if (stray)
    prover.fail(
      null,
      `the event ${stray.id} of ${stray.at.toISOString()} is in no place of the chain, though later ones are: it was not inserted by the service, or its link was removed`,
    );
}

async function newestInFile(file: string | undefined): Promise<Checkpoint[]> {
  if (!file) return [];
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []; // nothing was signed yet
    throw error;
  }
  // The newest suffices: the chain matches it only if it matches all before it.
  const lines = text.split('\n').filter(Boolean);
  const newest = lines.findLast((line) => checkpointSchema.safeParse(parsed(line)).success);
  return newest ? [checkpointSchema.parse(parsed(newest))] : [];
}

function parsed(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined; // a line cut short by a crash
  }
}
