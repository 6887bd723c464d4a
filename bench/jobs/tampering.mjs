/** What a superuser of the database does to the audit log, and what finds it: see `--help`. */
import { execFile } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { chainHash, exportLineSchema, signCheckpoint } from '@latchkey/contracts';
import { firstParty, maintenanceCaller } from '@latchkey/runtime';
import { options } from '../lib/options.mjs';
import { report } from '../lib.mjs';
import { startStack } from './stack.mjs';

const { events } = options(
  'tampering',
  `The audit log is edited, cut, stuffed, put in another order and signed anew by a superuser of PostgreSQL, with every
trigger off. Shows for each the result of GET /v1/audit/verify, and of \`latchkey audit verify\` on an export made after.`,
  { events: [60, 'events in the log'] },
);
const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-bench-'));
const checkpointFile = path.join(dir, 'checkpoints');
const keys = generateKeyPairSync('ed25519');
const keyFile = path.join(dir, 'key.pem');
writeFileSync(keyFile, keys.publicKey.export({ type: 'spki', format: 'pem' }));
const stack = await startStack({
  service: {
    AUDIT_SIGNING_KEY: keys.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    AUDIT_CHECKPOINT_EVENTS: '20',
    AUDIT_CHECKPOINT_FILE: checkpointFile,
  },
});
const TABLES = ['audit_events', 'audit_links', 'audit_checkpoints'];
const asSuperuser = (/** @type {string[]} */ ...statements) =>
  stack.database.query(['SET session_replication_role = replica', ...statements].join(';\n'));
const restore = () =>
  asSuperuser(
    ...TABLES.flatMap((table) => [`DELETE FROM ${table}`, `INSERT INTO ${table} SELECT * FROM kept.${table}`]),
  );

/** The next `after` places are one further or one less; the links have no second at one place meanwhile. */
const shift = (/** @type {number} */ after, /** @type {number} */ by) => [
  `UPDATE audit_links SET seq = -seq WHERE seq > ${after}`,
  `UPDATE audit_links SET seq = -seq + ${by} WHERE seq < 0`,
];
const eventAt = (/** @type {number} */ seq) => `(SELECT event_id FROM audit_links WHERE seq = ${seq})`;
const copyOf = (/** @type {number} */ seq) =>
  `INSERT INTO audit_events (id, at, actor_type, actor_name, action, xid)
   SELECT '01890000-0000-7000-8000-000000000001', at, 'system', 'Latchkey', 'token.issued', xid FROM audit_events WHERE id = ${eventAt(seq)}`;
const cutAfter = (/** @type {number} */ seq) => [
  `DELETE FROM audit_events WHERE id IN (SELECT event_id FROM audit_links WHERE seq > ${seq})`,
  `DELETE FROM audit_links WHERE seq > ${seq}`,
];

/** Event 7 is edited and all hashes after it made anew; checkpoints are signed by a key of the forger's own. */
async function forgeAll() {
  await asSuperuser(`UPDATE audit_events SET actor_name = 'Mallory' WHERE id = ${eventAt(7)}`);
  const text = await (await fetch(`${stack.apiUrl}/v1/audit/export`, { headers: { cookie: stack.cookie } })).text();
  let hash = '0'.repeat(64);
  const hashes = [];
  for (const line of text.trim().split('\n')) {
    const event = exportLineSchema.parse(JSON.parse(line));
    if (event.seq === null) continue;
    hash = chainHash(hash, event);
    hashes.push(hash);
  }
  await asSuperuser(
    `UPDATE audit_links l SET hash = decode(h.hash, 'hex') FROM unnest(ARRAY['${hashes.join("','")}']) WITH ORDINALITY AS h(hash, seq) WHERE l.seq = h.seq`,
  );
  return hashes;
}
async function signAnew(/** @type {string[]} */ hashes) {
  const own = generateKeyPairSync('ed25519');
  const spki = own.publicKey.export({ type: 'spki', format: 'der' }).toString('base64');
  const rows = await stack.database.query('SELECT seq::int, at, kind FROM audit_checkpoints');
  for (const { seq, at, kind } of rows) {
    const forged = signCheckpoint(own.privateKey, { seq, hash: hashes[seq - 1] ?? '', at: at.toISOString(), kind });
    await asSuperuser(
      `UPDATE audit_checkpoints SET hash = decode('${forged.hash}', 'hex'), public_key = '${spki}',
         signature = decode('${Buffer.from(forged.signature, 'base64url').toString('hex')}', 'hex') WHERE seq = ${seq}`,
    );
  }
}

/**
 * By what is done: the first place that is wrong, at the latest; `atFirst` where it lies in the stretch that a checkpoint
 * signs. `online`: what an export cannot show.
 * @type {Record<string, { do: () => Promise<unknown>, at: number | null, from?: number, online?: boolean }>}
 */
const deeds = {
  'edit: another name at place 7': {
    do: () => asSuperuser(`UPDATE audit_events SET actor_name = 'Mallory' WHERE id = ${eventAt(7)}`),
    at: 7,
  },
  'delete: the event at place 7, its link stays': {
    do: () => asSuperuser(`DELETE FROM audit_events WHERE id = ${eventAt(7)}`),
    at: 7,
  },
  'delete: the event at place 7 with its link': {
    do: () => asSuperuser(`DELETE FROM audit_events WHERE id = ${eventAt(7)}`, 'DELETE FROM audit_links WHERE seq = 7'),
    at: 7,
  },
  'delete: place 7, all later ones moved up': {
    do: () =>
      asSuperuser(
        `DELETE FROM audit_events WHERE id = ${eventAt(7)}`,
        'DELETE FROM audit_links WHERE seq = 7',
        ...shift(7, -1),
      ),
    at: 7,
  },
  'insert: an event among the old ones, without a link': { do: () => asSuperuser(copyOf(7)), at: null, online: true },
  'insert: an event with a link at place 8, later ones moved': {
    do: () =>
      asSuperuser(
        copyOf(7),
        ...shift(7, 1),
        `INSERT INTO audit_links (seq, event_id, event_at, hash) SELECT 8, id, at, sha256('guess') FROM audit_events WHERE id = '01890000-0000-7000-8000-000000000001'`,
      ),
    at: 8,
  },
  'reorder: places 7 and 8 exchanged': {
    do: () =>
      asSuperuser(
        `CREATE TEMPORARY TABLE pair AS SELECT * FROM audit_links WHERE seq IN (7, 8)`,
        'DELETE FROM audit_links WHERE seq IN (7, 8)',
        'INSERT INTO audit_links SELECT a.seq, b.event_id, b.event_at, a.hash FROM pair a JOIN pair b ON b.seq = 15 - a.seq',
      ),
    at: 7,
  },
  'truncate: the tail from place 31, its checkpoints stay': { do: () => asSuperuser(...cutAfter(30)), at: 31 },
  'truncate: the tail from place 31 with its checkpoints': {
    do: () => asSuperuser(...cutAfter(30), 'DELETE FROM audit_checkpoints WHERE seq > 30'),
    at: 31,
  },
  'truncate: the head up to place 10': {
    do: () =>
      asSuperuser(
        'DELETE FROM audit_events WHERE id IN (SELECT event_id FROM audit_links WHERE seq <= 10)',
        'DELETE FROM audit_links WHERE seq <= 10',
      ),
    at: 1,
  },
  'truncate: everything': { do: () => asSuperuser(...TABLES.map((table) => `DELETE FROM ${table}`)), at: 1 },
  'checkpoint: its time changed': {
    do: () =>
      asSuperuser(
        "UPDATE audit_checkpoints SET at = at + interval '1 hour' WHERE seq = (SELECT min(seq) FROM audit_checkpoints)",
      ),
    at: 20,
    from: 1,
  },
  'checkpoint: signed by another key': {
    do: async () => {
      const rows = await stack.database.query("SELECT encode(hash, 'hex') AS hash FROM audit_links ORDER BY seq");
      await signAnew(rows.map((row) => row['hash']));
    },
    at: 20,
    from: 1,
  },
  'rewritten from place 7 with right hashes': { do: forgeAll, at: 7, from: 1 },
  'rewritten from place 7 and signed by another key': { do: async () => signAnew(await forgeAll()), at: 20, from: 1 },
};

try {
  const maintenance = maintenanceCaller({
    address: stack.rpcAddress,
    authorization: firstParty(stack.credentials.jobs.JOBS_RPC_SECRET),
  });
  for (let sealed = 0; sealed < events; ) {
    await stack.call('POST', '/v1/tokens', { name: `token ${sealed}` });
    sealed += (await maintenance.sealAudit({ limit: 1_000 })).done;
  }
  maintenance.close();
  await stack.database.query(
    `CREATE SCHEMA kept; ${TABLES.map((table) => `CREATE TABLE kept.${table} AS SELECT * FROM ${table}`).join(';')}`,
  );
  const sound = await found();
  report('untouched: faults found', [sound.online, sound.offline].filter((fault) => fault !== null).length, 0);
  for (const [what, deed] of Object.entries(deeds)) {
    await deed.do();
    const { online, offline } = await found();
    const right = (/** @type {{ seq: number | null } | null} */ fault) =>
      fault !== null &&
      (deed.at === null
        ? fault.seq === null
        : fault.seq !== null && fault.seq <= deed.at && fault.seq >= (deed.from ?? deed.at));
    const wrong = [...(right(online) ? [] : ['online']), ...(deed.online || right(offline) ? [] : ['offline'])];
    report(what, wrong.length, 0);
    console.log(`      server: ${online ? `${online.seq ?? '-'}: ${online.reason}` : 'nothing'}`);
    const outside = deed.online ? 'no part of the chain, so no part of an export of it' : 'nothing';
    console.log(`      export: ${offline ? `${offline.seq ?? '-'}: ${offline.reason}` : outside}`);
    await restore();
  }
} finally {
  await stack.stop();
  rmSync(dir, { recursive: true });
}

/** What the server finds, and what the command finds in an export. */
async function found() {
  const { firstBroken: online } = await stack.call('GET', '/v1/audit/verify');
  const file = path.join(dir, 'export.ndjson');
  const exported = await fetch(`${stack.apiUrl}/v1/audit/export`, { headers: { cookie: stack.cookie } });
  writeFileSync(file, await exported.text());
  const command = path.join(import.meta.dirname, '../../packages/client/bin/latchkey.mjs');
  const args = [command, 'audit', 'verify', file, '--key', keyFile, '--checkpoints', checkpointFile, '--json'];
  const { code, stdout } = await new Promise((resolve) =>
    execFile(process.execPath, args, (error, stdout) => resolve({ code: error ? error.code : 0, stdout })),
  );
  const verdict = JSON.parse(stdout);
  if ((code === 0) !== verdict.ok) throw new Error(`latchkey audit verify ended with ${code}: ${stdout}`);
  return { online, offline: verdict.firstBroken };
}
