/**
 * The peer of issuing: `pg` alone, inserting the rows that issuing a token inserts (the token, its audit event) in a
 * transaction of their own, with prepared statements. Reads jobs as JSON lines on stdin (`{atOnce, ms}`), writes for each
 * with a line `{count, ms}`. Its arguments: a URL, the size of the
 * pool, the owners' ids.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { createInterface } from 'node:readline';
import pg from 'pg';

const [url, poolSize, ...owners] = process.argv.slice(2);
const pool = new pg.Pool({ connectionString: url, max: Number(poolSize) });

const INSERT_TOKEN = `INSERT INTO tokens (id, hash, kind, name, description, start, owner_user_id, project_id,
    created_by_type, created_by_id, ancestors, scopes, allowed_ips, rate_limit, rate_window_seconds, metadata, created_at,
    expires_at, rotated_from)
  VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)`;
const INSERT_EVENT = `INSERT INTO audit_events (id, at, actor_type, actor_id, actor_name, action, token_id, project_id,
    subject_type, subject_id, subject_name, ip, user_agent, request_id, details)
  VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`;

/** @param {string | undefined} owner */
async function insert(owner) {
  const client = await pool.connect();
  try {
    const [id, at] = [randomUUID(), new Date()];
    const name = 'nightly export of billing';
    await client.query({ name: 'begin', text: 'BEGIN' });
    const token = [id, randomBytes(32), 'pat', name, '', 'lk_pat_aB3x', owner, null, 'user', owner];
    await client.query({
      name: 'token',
      text: INSERT_TOKEN,
      values: [...token, [], ['tokens:read'], [], null, null, '{}', at, new Date(at.getTime() + 86_400_000), null],
    });
    const details = JSON.stringify({ kind: 'pat', scopes: ['tokens:read'], expiresAt: at.toISOString() });
    const event = [randomUUID(), at, 'user', owner, 'Administrator', 'token.issued', id, null, 'token', id, name];
    await client.query({
      name: 'event',
      text: INSERT_EVENT,
      values: [...event, '127.0.0.1', 'bench/1', randomUUID(), details],
    });
    await client.query({ name: 'commit', text: 'COMMIT' });
  } finally {
    client.release();
  }
}

async function run({ atOnce, ms }) {
  const startedAt = performance.now();
  const until = startedAt + ms;
  let count = 0;
  const worker = async (_, i) => {
    while (performance.now() < until) {
      await insert(owners[i % owners.length]);
      count++;
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  return { count, ms: performance.now() - startedAt };
}

console.log('ready');
for await (const line of createInterface({ input: process.stdin }))
  console.log(JSON.stringify(await run(JSON.parse(line))));
await pool.end();
