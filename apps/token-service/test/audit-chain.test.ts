import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { type ChainVerdict, type Checkpoint, proveExport, signCheckpoint } from '@latchkey/contracts';
import { createLogger, newId, systemClock } from '@latchkey/runtime';
import { type TestDatabase, waitFor } from '@latchkey/testing';
import { Client } from 'pg';
import { DataSource } from 'typeorm';
import { AuditChain, type ChainOptions } from '../src/audit/chain.service.js';
import { Database, dataSourceOptions } from '../src/database/database.service.js';
import { asRole, migratedDatabase } from './database.js';

let database: TestDatabase;
let opened: Database;
let service: DataSource;
let key: KeyObject;
let chain: AuditChain;

beforeEach(async () => {
  database = await migratedDatabase();
  const config = { DATABASE_URL: asRole(database.url, 'latchkey_service'), DATABASE_POOL_SIZE: 8, LEASE_MS: 10_000 };
  service = await new DataSource(dataSourceOptions(config as never)).initialize();
  opened = new Database(service, config as never, systemClock, createLogger('test', 'silent'));
  key = generateKeyPairSync('ed25519').privateKey;
  chain = chainWith();
});
afterEach(async () => {
  await opened.onApplicationShutdown();
  await service.destroy();
  await database.close();
});

async function connect(role: Parameters<typeof asRole>[1]): Promise<DataSource> {
  const source = new DataSource({
    type: 'postgres',
    url: asRole(database.url, role),
    poolSize: 4,
    installExtensions: false,
  });
  return source.initialize();
}

const chainWith = (options: Partial<ChainOptions> = {}, logger = createLogger('test', 'silent')) =>
  new AuditChain(opened, logger, {
    signingKey: key,
    checkpointEveryEvents: 10,
    checkpointEveryMs: 3_600_000,
    ...options,
  });

/** Writes events one after another, as changes do. */
async function write(count: number, at = new Date()): Promise<string[]> {
  const ids: string[] = [];
  for (let i = 0; i < count; i++) {
    const id = newId();
    ids.push(id);
    await service.query(
      `INSERT INTO audit_events (id, at, actor_type, actor_name, action, subject_type, subject_id, subject_name, details)
       VALUES ($1, $2, 'system', 'Latchkey', 'token.issued', 'token', $3, 'deploy "é"', $4)`,
      [id, new Date(at.getTime() + i), newId(), { n: i, nested: { b: 1, a: [true, null] } }],
    );
  }
  return ids;
}

/** Seals until no event waits: other tests keep transactions open in the same cluster, and sealing waits for them. */
async function sealAll(): Promise<number> {
  let done = 0;
  await waitFor(async () => {
    done += (await chain.seal(7)).done;
    const [{ waiting } = { waiting: 0 }] = await database.query<{ waiting: number }>(
      'SELECT count(*)::int AS waiting FROM audit_events e WHERE NOT EXISTS (SELECT FROM audit_links l WHERE l.event_id = e.id)',
    );
    return waiting === 0;
  });
  return done;
}

/** Runs statements as a superuser, whom triggers do not stop. */
async function asSuperuser(...statements: string[]): Promise<void> {
  const client = new Client({ connectionString: database.url });
  await client.connect();
  try {
    await client.query('SET session_replication_role = replica');
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}

/** The first fault that a process finds which has nothing of the chain in memory. */
const faultOf = async (): Promise<ChainVerdict['firstBroken']> => (await chainWith().verify()).firstBroken;

async function exported(): Promise<string[]> {
  const lines: string[] = [];
  for await (const page of chain.export('ndjson')) lines.push(...page);
  return lines;
}

test('sealing puts every event into one chain once, without gaps, and the chain verifies', async () => {
  const ids = await write(25);
  expect(await sealAll()).toBe(25);
  expect(await sealAll()).toBe(0);
  const links = await database.query('SELECT seq::int, event_id FROM audit_links ORDER BY seq');
  expect(links.map((l) => l['seq'])).toEqual(Array.from({ length: 25 }, (_, i) => i + 1));
  expect(links.map((l) => l['event_id'])).toEqual(ids);
  const { checkpoints, ...rest } = await chainWith().verify();
  expect(rest).toEqual({ ok: true, events: 25, firstBroken: null });
  expect(checkpoints).toBeGreaterThanOrEqual(2);
});

test('sealing never passes an open transaction that can still write an earlier event', async () => {
  const slow = new Client({ connectionString: asRole(database.url, 'latchkey_service') });
  await slow.connect();
  try {
    await slow.query('BEGIN');
    const first = newId();
    await slow.query(
      `INSERT INTO audit_events (id, at, actor_type, actor_name, action) VALUES ($1, now(), 'system', 'Latchkey', 'user.created')`,
      [first],
    );
    const later = await write(3);
    expect((await chain.seal(7)).done).toBe(0);
    await slow.query('COMMIT');
    expect(await sealAll()).toBe(4);
    const order = await database.query('SELECT event_id FROM audit_links ORDER BY seq');
    expect(order.map((l) => l['event_id'])).toEqual([first, ...later]);
  } finally {
    await slow.end();
  }
});

test('concurrent sealers make one chain', async () => {
  await write(40);
  const others = Array.from({ length: 4 }, () => chainWith());
  await waitFor(async () => {
    const steps = await Promise.all(others.map((other) => other.seal(5)));
    return steps.every(({ done }) => done === 0) && (await sealAll()) === 0;
  });
  const [row] = await database.query('SELECT count(*)::int AS links, max(seq)::int AS last FROM audit_links');
  expect(row).toEqual({ links: 40, last: 40 });
  expect((await chain.verify()).ok).toBe(true);
});

test("the services' database roles can change no written audit row", async () => {
  await write(2);
  await sealAll();
  const roles = ['latchkey_service', 'latchkey_jobs', 'latchkey_retention'] as const;
  for (const role of roles) {
    const source = await connect(role);
    for (const table of ['audit_events', 'audit_links', 'audit_checkpoints'])
      for (const change of [`UPDATE ${table} SET hash = hash`, `DELETE FROM ${table}`, `TRUNCATE ${table}`])
        await expect(
          source.query(change.replace('hash = hash', table === 'audit_events' ? 'ip = ip' : 'hash = hash')),
        ).rejects.toThrow(/permission denied/);
    await expect(source.query('DROP TABLE audit_links')).rejects.toThrow(/must be owner/);
    await source.destroy();
  }
});

test('the audit log is append-only for the schema owner too, also in a partition named directly', async () => {
  await write(1);
  await sealAll();
  const [partition] = await database.query('SELECT tableoid::regclass::text AS name FROM audit_events');
  for (const statement of [
    `UPDATE audit_events SET actor_name = 'x'`,
    `DELETE FROM ${partition!['name']}`,
    `TRUNCATE ${partition!['name']}`,
    'DELETE FROM audit_links',
    'TRUNCATE audit_checkpoints',
    'UPDATE audit_checkpoints SET seq = 9',
  ])
    await expect(database.query(statement)).rejects.toThrow(/append-only/);
});

test('verification finds an edited event and names it', async () => {
  await write(12);
  await sealAll();
  const edits = [
    `actor_name = 'Mallory'`,
    `at = at + interval '1 second'`,
    `details = jsonb_set(details, '{nested,b}', '2')`,
    `ip = '192.0.2.1'`,
    `subject_id = 'x'`,
  ];
  for (const edit of edits) {
    const [event] = await database.query('SELECT event_id FROM audit_links WHERE seq = 5');
    const id = event!['event_id'];
    await asSuperuser(
      'CREATE TABLE saved AS SELECT * FROM audit_events',
      `UPDATE audit_events SET ${edit} WHERE id = '${id}'`,
    );
    expect((await faultOf())?.seq).toBe(5);
    await asSuperuser('DELETE FROM audit_events', 'INSERT INTO audit_events SELECT * FROM saved', 'DROP TABLE saved');
    expect(await faultOf()).toBeNull();
  }
});

test('verification finds a deleted event, with or without its link', async () => {
  await write(12);
  await sealAll();
  await asSuperuser('DELETE FROM audit_events WHERE id = (SELECT event_id FROM audit_links WHERE seq = 4)');
  expect(await faultOf()).toEqual({ seq: 4, reason: expect.stringContaining('was deleted; its link is still there') });
  await asSuperuser('DELETE FROM audit_links WHERE seq = 4');
  expect(await faultOf()).toEqual({ seq: 4, reason: expect.stringContaining('event 4 is missing') });
});

test('verification finds a head that was cut off without a signed retention statement', async () => {
  await write(12);
  await sealAll();
  await asSuperuser(
    'DELETE FROM audit_events WHERE id IN (SELECT event_id FROM audit_links WHERE seq <= 10)',
    'DELETE FROM audit_links WHERE seq <= 10',
  );
  expect(await faultOf()).toEqual({ seq: 1, reason: expect.stringContaining('events 1 to 10 are missing') });
  await asSuperuser("UPDATE audit_checkpoints SET kind = 'retired' WHERE seq = (SELECT min(seq) - 1 FROM audit_links)");
  expect((await faultOf())?.seq).toBeLessThanOrEqual(10);
});

test('verification finds events whose order was changed', async () => {
  await write(12);
  await sealAll();
  await asSuperuser(
    'ALTER TABLE audit_links DROP CONSTRAINT audit_links_event_once',
    `UPDATE audit_links a SET event_id = b.event_id, event_at = b.event_at FROM audit_links b
     WHERE (a.seq, b.seq) IN ((6, 7), (7, 6))`,
  );
  expect(await faultOf()).toEqual({ seq: 6, reason: expect.stringContaining('edited, replaced, or moved') });
});

test('verification finds an event that was inserted among sealed ones', async () => {
  await write(12);
  await sealAll();
  await asSuperuser(`INSERT INTO audit_events (id, at, actor_type, actor_name, action, xid)
    SELECT gen_random_uuid(), e.at, 'system', 'Latchkey', 'token.issued', e.xid FROM audit_events e
    JOIN audit_links l ON l.event_id = e.id WHERE l.seq = 5`);
  expect(await faultOf()).toEqual({ seq: null, reason: expect.stringContaining('in no place of the chain') });
});

test('verification finds a chain that was recomputed with correct hashes: no checkpoint matches it', async () => {
  await write(25);
  await sealAll();
  await asSuperuser(
    `UPDATE audit_events SET actor_name = 'Mallory' WHERE id = (SELECT event_id FROM audit_links WHERE seq = 15)`,
    'CREATE TABLE saved AS SELECT * FROM audit_checkpoints',
    'DELETE FROM audit_checkpoints',
    'DELETE FROM audit_links',
  );
  const forger = chainWith({ signingKey: undefined });
  let forged = 0;
  await waitFor(async () => {
    forged += (await forger.seal(100)).done;
    return forged === 25;
  });
  await asSuperuser('INSERT INTO audit_checkpoints SELECT * FROM saved');
  const fault = await faultOf();
  expect(fault?.reason).toContain('their hashes made anew');
  expect(fault?.seq).toBeLessThanOrEqual(15);
  expect(fault?.seq).toBeGreaterThan(1);
});

test('verification finds a tail that was cut off while its checkpoint remained', async () => {
  await write(21);
  await sealAll();
  await asSuperuser(
    'DELETE FROM audit_events WHERE id IN (SELECT event_id FROM audit_links WHERE seq > 12)',
    'DELETE FROM audit_links WHERE seq > 12',
  );
  expect(await faultOf()).toEqual({ seq: 13, reason: expect.stringContaining('the tail was cut') });
});

test('verification finds a tail that was cut off with its checkpoints, back to the last one stored outside the database', async () => {
  const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-chain-'));
  try {
    const checkpointFile = path.join(dir, 'checkpoints');
    const log: { checkpoint?: string }[] = [];
    const logger = createLogger('test', 'info', { write: (line: string) => void log.push(JSON.parse(line)) });
    chain = chainWith({ checkpointFile }, logger);
    await write(21);
    await sealAll();
    const logged = log.flatMap(({ checkpoint }) => checkpoint ?? []);
    expect(`${logged.join('\n')}\n`).toBe(readFileSync(checkpointFile, 'utf8'));
    const stored = readFileSync(checkpointFile, 'utf8')
      .trim()
      .split('\n')
      .map((l) => JSON.parse(l) as Checkpoint);
    await asSuperuser(
      'DELETE FROM audit_events WHERE id IN (SELECT event_id FROM audit_links WHERE seq > 12)',
      'DELETE FROM audit_links WHERE seq > 12',
      'DELETE FROM audit_checkpoints WHERE seq > 12',
    );
    const expected = { seq: 13, reason: expect.stringContaining('kept outside the database') };
    expect((await chainWith({ checkpointFile }).verify()).firstBroken).toEqual(expected);
    expect((await chain.verify()).firstBroken).toEqual(expected); // this process has in memory what it signed
    expect(await proveExport(await exported(), [], [stored.at(-1)!])).toMatchObject({
      ok: false,
      firstBroken: { seq: 13 },
    });
  } finally {
    rmSync(dir, { recursive: true });
  }
});

test('verification finds a forged checkpoint: a wrong signature, another key, no key', async () => {
  await write(10);
  await sealAll();
  await asSuperuser("UPDATE audit_checkpoints SET at = at + interval '1 hour'");
  expect((await faultOf())?.reason).toContain('its signature is wrong');
  const foreign = generateKeyPairSync('ed25519');
  const [row] = await database.query("SELECT seq::int, encode(hash, 'hex') AS hash, at FROM audit_checkpoints");
  const forged = signCheckpoint(foreign.privateKey, {
    seq: row!['seq'],
    hash: row!['hash'],
    at: row!['at'].toISOString(),
    kind: 'sealed',
  });
  const spki = foreign.publicKey.export({ type: 'spki', format: 'der' }).toString('base64');
  await asSuperuser(
    `UPDATE audit_checkpoints SET public_key = '${spki}', signature = decode('${Buffer.from(forged.signature, 'base64url').toString('hex')}', 'hex')`,
  );
  expect((await faultOf())?.reason).toContain('no trusted key');
  await asSuperuser("UPDATE audit_checkpoints SET public_key = 'nonsense'");
  expect((await faultOf())?.reason).toContain('no trusted key');
});

test('verification accepts checkpoints of an earlier key that is configured as trusted', async () => {
  await write(10);
  await sealAll();
  const next = generateKeyPairSync('ed25519').privateKey;
  expect((await chainWith({ signingKey: next }).verify()).ok).toBe(false);
  expect((await chainWith({ signingKey: next, retiredKeys: chain.trustedKeys }).verify()).ok).toBe(true);
});

test('an export verifies without the service, and shows every change made to it', async () => {
  await write(25);
  await sealAll();
  await write(2);
  const lines = await exported();
  expect(lines).toHaveLength(27);
  const verdict = await proveExport(lines, chain.trustedKeys);
  expect(verdict).toMatchObject({ ok: true, events: 25, firstBroken: null });
  expect(verdict.signedThrough).toBeGreaterThanOrEqual(20);
  const broken = async (changed: string[]) => (await proveExport(changed, chain.trustedKeys)).firstBroken?.seq;
  expect(await broken(lines.toSpliced(3, 1))).toBe(4);
  expect(await broken(lines.with(6, lines[6]!.replace('Latchkey', 'Mallory')))).toBe(7);
  expect(await broken(lines.with(8, lines[9]!).with(9, lines[8]!))).toBe(9);
  expect(await broken(lines.with(2, '{}'))).toBe(3);
  const signed = lines.findIndex((line) => line.includes('"checkpoints"'));
  const forged = lines[signed]!.replace(/"signature":"..../, '"signature":"AAAA');
  expect(await broken(lines.with(signed, forged))).toBe(signed + 1);
});

test('retention removes whole months, and the rest verifies from the signed retention statement', async () => {
  const monthsAgo = (months: number) => {
    const at = new Date();
    at.setUTCDate(15);
    at.setUTCMonth(at.getUTCMonth() - months);
    return at;
  };
  const [month] = [monthsAgo(4)];
  const name = `audit_events_${month!.toISOString().slice(0, 7).replace('-', '_')}`;
  const from = `${month!.toISOString().slice(0, 7)}-01T00:00:00Z`;
  await database.query(
    `CREATE TABLE ${name} PARTITION OF audit_events FOR VALUES FROM ('${from}') TO ('${monthsAgo(3).toISOString().slice(0, 7)}-01T00:00:00Z')`,
  );
  const old = await write(10, monthsAgo(4));
  const recent = await write(5);
  const [straggler] = await write(1, monthsAgo(4)); // committed late: its place is after the events that stay
  await sealAll();
  const retention = await connect('latchkey_retention');
  try {
    expect(await chain.retire(retention, monthsAgo(2))).toBe(10);
    expect(await chain.retire(retention, monthsAgo(2))).toBe(0);
  } finally {
    await retention.destroy();
  }
  const left = (await database.query('SELECT id FROM audit_events')).map((r) => r['id']);
  expect(left.sort()).toEqual([...recent, straggler].sort());
  expect(left).not.toContain(old[0]);
  expect((await database.query(`SELECT to_regclass('${name}') AS t`))[0]!['t']).toBeNull();
  expect(await chainWith().verify()).toMatchObject({ ok: true, events: 6 });
  expect(await proveExport(await exported(), chain.trustedKeys)).toMatchObject({ ok: true, events: 6 });
  await write(3);
  await sealAll();
  expect(await chainWith().verify()).toMatchObject({ ok: true, events: 9 });
});

test('only retention can remove the head of the audit chain, and nothing younger than 31 days', async () => {
  await write(3);
  await sealAll();
  await expect(service.query('SELECT audit_retire()')).rejects.toThrow(/permission denied/);
  const retention = await connect('latchkey_retention');
  try {
    await expect(chain.retire(retention, new Date(Date.now() + 1_000))).rejects.toThrow(/at least 31 days/);
  } finally {
    await retention.destroy();
  }
});

test('sealing continues the chain in a database restored from a dump, whose transaction ids start again', async () => {
  await write(5);
  await sealAll();
  await write(2);
  // As in a restored dump: transaction ids that this cluster has not reached yet.
  await asSuperuser(`UPDATE audit_events SET xid = (xid::text::bigint + 1000000000000)::text::xid8`);
  chain = chainWith();
  await write(3);
  expect(await sealAll()).toBe(5);
  await write(4);
  expect(await sealAll()).toBe(4);
  expect(await chainWith().verify()).toMatchObject({ ok: true, events: 14 });
});

test('a failed insert of the audit event aborts the change that it belongs to', async () => {
  await asSuperuser(
    `CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$`,
    'CREATE TRIGGER full_disk BEFORE INSERT ON audit_events FOR EACH ROW EXECUTE FUNCTION disk_full()',
  );
  const user = newId();
  await expect(
    service.transaction(async (tx) => {
      await tx.query(
        "INSERT INTO users (id, email, name, role, created_at) VALUES ($1, 'a@b.test', 'A', 'member', now())",
        [user],
      );
      await tx.query(
        "INSERT INTO audit_events (id, at, actor_type, actor_name, action) VALUES ($1, now(), 'system', 'x', 'user.created')",
        [newId()],
      );
    }),
  ).rejects.toThrow('could not extend file');
  expect(await database.query('SELECT id FROM users WHERE id = $1', [user])).toEqual([]);
});
