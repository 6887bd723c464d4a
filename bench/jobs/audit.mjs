/** Sealing, export and proof of a long audit log: see `--help`. */
import { firstParty, maintenanceCaller } from '@latchkey/runtime';
import { options } from '../lib/options.mjs';
import { report } from '../lib.mjs';
import { memoryMb, secondsSince, startStack } from './stack.mjs';

const { events } = options(
  'audit',
  `Events are written, sealed, exported in both formats and proven: rows a second, and the token-service's memory at every
tenth of each export, which must not grow with what is exported.`,
  { events: [1_000_000, 'events'] },
);
const stack = await startStack();
try {
  // A thousand events a transaction, as steps of a sweep write them.
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
    authorization: firstParty(stack.credentials.jobs.JOBS_RPC_SECRET),
    timeoutMs: 60_000,
  });
  const { pid } = stack.tokenService;
  report('token-service before', memoryMb(pid, 'VmRSS'), undefined, ' MB');
  const sealing = performance.now();
  while ((await maintenance.sealAudit({ limit: 1_000 })).more);
  report('sealed a second', events / secondsSince(sealing));
  report('token-service after sealing', memoryMb(pid, 'VmRSS'), undefined, ' MB');
  maintenance.close();

  for (const format of ['ndjson', 'csv']) {
    const started = performance.now();
    const headers = { cookie: stack.cookie };
    const response = await fetch(`${stack.apiUrl}/v1/audit/export?format=${format}`, { headers });
    let rows = 0;
    let bytes = 0;
    /** @type {number[]} */
    const resident = [];
    for await (const chunk of /** @type {AsyncIterable<Uint8Array>} */ (response.body)) {
      bytes += chunk.length;
      for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, at + 1)) rows++;
      if (rows >= (resident.length * events) / 10) resident.push(memoryMb(pid, 'VmRSS'));
    }
    const expected = rows - (format === 'csv' ? 1 : 0) - 1; // the heading; the administrator's own event
    report(`${format}: events missing`, events - expected, 1);
    report(`${format}: megabytes`, bytes / 1e6);
    report(`${format}: rows a second`, rows / secondsSince(started));
    console.log(`  ${format}: resident at each tenth ${resident.join(' ')} MB`);
    const [early, late] = [resident.slice(1, 4), resident.slice(-3)].map((part) => Math.max(...part));
    report(`${format}: memory of the last tenths / of the first`, late / early, 1.25, '×');
  }
  const proving = performance.now();
  const verdict = await stack.call('GET', '/v1/audit/verify');
  report('proven a second', events / secondsSince(proving));
  report('events and checkpoints not proven', verdict.ok ? 0 : 1, 0);
  report('peak memory, token-service', memoryMb(pid, 'VmHWM'), undefined, ' MB');
} finally {
  await stack.stop();
}
