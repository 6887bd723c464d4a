/**
 * Sealing, export and proof of a long audit log. `node bench/jobs/audit.mjs [events=1000000]`: prints one line of JSON.
 */
import { firstParty, maintenanceCaller } from '@latchkey/runtime';
import { memoryMb, secondsSince, startStack } from './stack.mjs';

const [events = 1_000_000] = process.argv.slice(2).map(Number);
const stack = await startStack();
try {
  // A thousand events a transaction, as much as one step of expiry writes.
  for (let done = 0; done < events; done += 1_000)
    await stack.database.query(
      `INSERT INTO audit_events (id, at, actor_type, actor_id, actor_name, action, token_id, subject_type, subject_id, subject_name, ip, user_agent, request_id, details)
       SELECT gen_random_uuid(), now() - (10000000 - n) * interval '1 millisecond', 'user', gen_random_uuid(), 'Ada Lovelace', 'token.issued', gen_random_uuid(),
         'token', gen_random_uuid(), 'nightly build ' || n, '192.0.2.1', 'latchkey/0.1.0', gen_random_uuid()::text, '{"scopes": ["demo:read"], "kind": "pat"}'
       FROM generate_series($1::int, $2::int) n`,
      [done + 1, Math.min(events, done + 1_000)],
    );
  await stack.database.query('VACUUM ANALYZE audit_events');
  const maintenance = maintenanceCaller({
    address: stack.rpcAddress,
    authorization: firstParty(stack.secrets.RPC_SECRET),
    timeoutMs: 60_000,
  });
  const { pid } = stack.tokenService;
  const sealing = performance.now();
  while ((await maintenance.sealAudit({ limit: 2_000 })).more);
  const sealSeconds = secondsSince(sealing);
  maintenance.close();

  const exportOf = async (/** @type {string} */ format) => {
    const started = performance.now();
    const response = await fetch(`${stack.apiUrl}/v1/audit/export?format=${format}`, {
      headers: { cookie: stack.cookie },
    });
    let rows = 0;
    let bytes = 0;
    /** @type {number[]} */
    const resident = [];
    let nextSample = 0;
    for await (const chunk of /** @type {AsyncIterable<Uint8Array>} */ (response.body)) {
      bytes += chunk.length;
      for (const byte of chunk) if (byte === 10) rows++;
      if (rows >= nextSample) {
        resident.push(memoryMb(pid, 'VmRSS'));
        nextSample += events / 10;
      }
    }
    const seconds = secondsSince(started);
    return {
      rows,
      megabytes: Math.round(bytes / 1e6),
      seconds,
      rowsPerSecond: Math.round(rows / seconds),
      residentMb: resident,
    };
  };
  const ndjson = await exportOf('ndjson');
  const csv = await exportOf('csv');
  const proving = performance.now();
  const verdict = await (await fetch(`${stack.apiUrl}/v1/audit/verify`, { headers: { cookie: stack.cookie } })).json();
  const verifySeconds = secondsSince(proving);
  console.log(
    JSON.stringify({
      events,
      sealSeconds,
      sealedPerSecond: Math.round(events / sealSeconds),
      ndjson,
      csv,
      verifySeconds,
      verdict,
      peakMb: memoryMb(pid, 'VmHWM'),
    }),
  );
} finally {
  await stack.stop();
}
