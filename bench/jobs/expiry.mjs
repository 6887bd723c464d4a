/**
 * How long until tokens that fall due at one moment are recorded as expired, with their audit events, sealed.
 * `node bench/jobs/expiry.mjs [present=1000000] [due=100000]`: prints one line of JSON.
 */
import { memoryMb, secondsSince, startStack, until } from './stack.mjs';

const [present = 1_000_000, due = 100_000] = process.argv.slice(2).map(Number);
const stack = await startStack();
const { database } = stack;
try {
  const filling = performance.now();
  // Indexes that no part of this reads are made after the rows, or filling would take most of the time.
  const slow = ['tokens_by_name', 'tokens_by_start', 'tokens_by_owner', 'tokens_by_time'];
  const definitions = await database.query('SELECT indexdef FROM pg_indexes WHERE indexname = ANY($1)', [slow]);
  for (const name of slow) await database.query(`DROP INDEX ${name}`);
  for (let done = 0; done < present; done += 500_000) {
    await database.query(
      `INSERT INTO tokens (id, hash, kind, name, start, owner_user_id, created_by_type, scopes, created_at, expires_at)
       SELECT gen_random_uuid(), sha256(('token ' || n)::bytea), 'pat', 'token ' || n, 'lk_pat_0000', (SELECT id FROM users LIMIT 1),
         'system', '{}', now() - interval '10 days',
         CASE WHEN n <= $3 THEN now() + interval '1 day' ELSE now() + interval '90 days' + n * interval '1 second' END
       FROM generate_series($1::int, $2::int) n`,
      [done + 1, Math.min(present, done + 500_000), due],
    );
  }
  for (const { indexdef } of definitions) await database.query(indexdef);
  await database.query('VACUUM ANALYZE tokens');
  const fillSeconds = secondsSince(filling);

  const worker = await stack.worker();
  await new Promise((resolve) => setTimeout(resolve, 3_000));
  await database.query("UPDATE tokens SET expires_at = now() WHERE expires_at < now() + interval '2 days'");
  const started = performance.now();
  const count = async (/** @type {string} */ sql) => Number((await database.query(sql))[0]?.['n']);
  await until(
    async () =>
      (await count(
        'SELECT count(*) AS n FROM tokens WHERE expires_at <= now() AND expiry_recorded_at IS NULL AND revoked_at IS NULL',
      )) === 0,
    500,
  );
  const seconds = secondsSince(started);
  const events = await count("SELECT count(*) AS n FROM audit_events WHERE action = 'token.expired'");
  await until(async () => (await count('SELECT max(seq) AS n FROM audit_links')) >= events, 500);
  const result = {
    present,
    due,
    fillSeconds,
    seconds,
    perSecond: Math.round(due / seconds),
    exactlyOneEventEach: events === due,
    sealedSeconds: secondsSince(started),
    peakMb: { tokenService: memoryMb(stack.tokenService.pid, 'VmHWM'), jobs: memoryMb(worker.pid, 'VmHWM') },
  };
  console.log(JSON.stringify(result));
  await worker.stop();
} finally {
  await stack.stop();
}
