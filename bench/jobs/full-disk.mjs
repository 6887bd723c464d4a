/** A disk that fills under PostgreSQL: see `--help`. */
import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, statfsSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { startPostgres } from '@latchkey/local-stack';
import pg from 'pg';
import { options } from '../lib/options.mjs';
import { report } from '../lib.mjs';
import { migrate, sleep, startStack, until } from './stack.mjs';

options(
  'full-disk',
  `PostgreSQL runs on a small file system of its own (tmpfs; only root can mount one), which is filled up: first that of
the audit log, as a tablespace, then that of all data and the write-ahead log, where PostgreSQL gives up. Changes must be
refused with 503, or be whole, checks and reads go on where they can, and everything works again once there is space.`,
  {},
);
if (process.getuid?.() !== 0) {
  console.error('full-disk: only root can mount a small file system; run it as root, on a machine for tests');
  process.exit(2);
}
const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-bench-'));
chmodSync(dir, 0o711);
/** @type {string[]} */
const mounted = [];
function mountSmall(/** @type {string} */ name, /** @type {number} */ megabytes) {
  const at = path.join(dir, name);
  mkdirSync(at);
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m,mode=711`, 'tmpfs', at]);
  mounted.push(at);
  return at;
}
/** Fills it but for so many kilobytes; returns what frees the space again. */
function fill(/** @type {string} */ at, /** @type {number} */ leaveKb) {
  const { bavail, bsize } = statfsSync(at);
  const ballast = path.join(at, 'ballast');
  writeFileSync(ballast, Buffer.alloc(Math.max(0, bavail * bsize - leaveKb * 1_024)));
  return () => rmSync(ballast, { force: true });
}

const home = mountSmall('cluster', 600);
const small = mountSmall('audit', 64);
let postgres = await startPostgres({ dir: home, connectionsMax: 60 });
const { port } = postgres;
/** A connection for each question: the server comes and goes. */
const database = {
  url: postgres.url,
  query: async (/** @type {string} */ sql, /** @type {unknown[]} */ values = []) => {
    const client = new pg.Client({ connectionString: postgres.url });
    client.on('error', () => undefined);
    await client.connect();
    try {
      return (await client.query(sql, values)).rows;
    } finally {
      await client.end();
    }
  },
  close: async () => undefined,
};
await migrate(database.url);
const stack = await startStack({ database, service: { LEASE_MS: '2000' } });
const gateway = await stack.gateway();
const worker = await stack.worker();

const ask = async (/** @type {string} */ method, /** @type {string} */ target, /** @type {unknown} */ body) => {
  const response = await fetch(new URL(target, stack.apiUrl), {
    method,
    headers: { cookie: stack.cookie, ...(body ? { 'content-type': 'application/json' } : {}) },
    ...(body ? { body: JSON.stringify(body) } : {}),
  });
  const text = await response.text();
  return {
    status: response.status,
    retryAfter: response.headers.get('retry-after'),
    body: text ? JSON.parse(text) : undefined,
  };
};
const check = async (/** @type {string} */ secret) => {
  const response = await fetch(`${gateway.url}/demo/x`, { headers: { authorization: `Bearer ${secret}` } });
  await response.text();
  return response.status;
};
/** Tokens without the event of their making, events without their token, and revocations without theirs. */
const halves = () =>
  stack.count(`SELECT
    (SELECT count(*) FROM tokens t WHERE NOT EXISTS (SELECT FROM audit_events e WHERE e.token_id = t.id AND e.action = 'token.issued'))
    + (SELECT count(*) FROM audit_events e WHERE e.action = 'token.issued' AND NOT EXISTS (SELECT FROM tokens t WHERE t.id = e.token_id))
    + (SELECT count(*) FROM tokens t WHERE t.revoked_at IS NOT NULL AND NOT EXISTS (SELECT FROM audit_events e WHERE e.token_id = t.id AND e.action = 'token.revoked'))
    + (SELECT count(*) FROM audit_events e WHERE e.action = 'token.revoked' AND NOT EXISTS (SELECT FROM tokens t WHERE t.id = e.token_id AND t.revoked_at IS NOT NULL))`);

/** Issues tokens until one is refused. @returns how many were, and the error response */
async function issueUntilRefused() {
  for (let issued = 0; issued < 20_000; issued++) {
    const response = await ask('POST', '/v1/tokens', { name: `token ${issued}`, description: 'x'.repeat(500) });
    if (response.status !== 201) return { issued, response };
  }
  throw new Error('the disk did not fill');
}
const works = async () => {
  const response = await ask('POST', '/v1/tokens', { name: 'after' });
  return response.status === 201;
};

try {
  const kept = await stack.call('POST', '/v1/tokens', { name: 'kept' });
  const other = await stack.call('POST', '/v1/tokens', { name: 'to be revoked' });

  console.log('  the disk of the audit log');
  const { uid, gid } = statSync(postgres.dataDir);
  chownSync(small, uid, gid);
  mkdirSync(path.join(small, 'space'));
  chownSync(path.join(small, 'space'), uid, gid);
  await database.query(`CREATE TABLESPACE small LOCATION '${path.join(small, 'space')}'`);
  const tables = await database.query(
    `SELECT c.relname, c.relkind FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid
     WHERE i.inhparent = 'audit_events'::regclass OR i.inhparent IN (SELECT indexrelid FROM pg_index WHERE indrelid = 'audit_events'::regclass)`,
  );
  for (const { relname, relkind } of tables)
    await database.query(`ALTER ${relkind === 'i' ? 'INDEX' : 'TABLE'} ${relname} SET TABLESPACE small`);
  let freeSpace = fill(small, 200);
  await rejections(kept, other);
  freeSpace();
  await until(works);
  report('works again once there is space', (await works()) ? 0 : 1, 0);

  console.log('  the disk of all data');
  freeSpace = fill(home, 300);
  await rejections(kept, other);
  freeSpace();
  await until(works);
  report('works again once there is space', (await works()) ? 0 : 1, 0);

  console.log('  the disk of the write-ahead log');
  freeSpace = fill(home, 300);
  // As when the current segment is full: the next one does not fit, and PostgreSQL stops rather than go on without.
  await database.query("SELECT pg_logical_emit_message(false, 'full', repeat('x', 17000000))").catch(() => undefined);
  report('PostgreSQL has given up', (await gone()) ? 0 : 1, 0);
  const refused = await ask('POST', '/v1/tokens', { name: 'without a database' });
  report(`a new token is refused with ${refused.status} ${refused.body?.code}`, refused.status === 503 ? 0 : 1, 0);
  const status = await check(kept.secret);
  report(`a check of a token at the gateway returns ${status}`, [200, 503].includes(status) ? 0 : 1, 0);
  freeSpace();
  // Restarted, as npm start does.
  postgres = await startPostgres({ dir: home, connectionsMax: 60, port });
  await until(works);
  report('works again once there is space', (await works()) ? 0 : 1, 0);
  report('changes of which a half is in the database', await halves(), 0);
  const revoked = await ask('POST', `/v1/tokens/${other.id}/revoke`, {});
  report(
    'the revocation that was refused can be made',
    revoked.status === 200 && (await check(other.secret)) === 401 ? 0 : 1,
    0,
  );
  await until(async () => (await stack.call('GET', '/v1/audit/verify')).ok, 1_000);
  report('places of the audit chain that cannot be proven', 0, 0);
} finally {
  await worker.stop();
  await gateway.stop();
  await stack.stop();
  await postgres.stop();
  for (const at of mounted.reverse()) execFileSync('umount', ['-l', at]);
  rmSync(dir, { recursive: true });
}

async function rejections(/** @type {any} */ kept, /** @type {any} */ other) {
  const { issued, response } = await issueUntilRefused();
  report('tokens issued until one was refused', issued);
  report(
    `a new token is refused with ${response.status} ${response.body?.code}, Retry-After ${response.retryAfter}`,
    response.status === 503 && response.retryAfter ? 0 : 1,
    0,
  );
  const revocation = await ask('POST', `/v1/tokens/${other.id}/revoke`, {});
  // What fits into pages that are there is done, and whole: see the halves below.
  report(`a revocation returns ${revocation.status}`, [503, 200].includes(revocation.status) ? 0 : 1, 0);
  const status = await check(kept.secret);
  report(`a check of a token at the gateway returns ${status}`, [200, 503].includes(status) ? 0 : 1, 0);
  report('changes of which a half is in the database', await halves(), 0);
}

async function gone() {
  await sleep(2_000);
  return Promise.race([postgres.exited.then(() => true), sleep(500).then(() => false)]);
}
