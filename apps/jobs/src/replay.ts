import { createLogger, loadConfig, settingSchema } from '@latchkey/runtime';
import { Client } from 'pg';

/**
 * `node dist/replay.js [from [to]]`: dead letters (batches of audit events) within this range of sequence numbers (all by
 * default) are sent to the SIEM again, before anything new, oldest first. Reads DATABASE_URL.
 */
const logger = createLogger('replay');
const [from = '1', to = '9223372036854775807', ...rest] = process.argv.slice(2);
if (![from, to].every((n) => /^\d{1,19}$/.test(n)) || rest.length > 0) {
  logger.fatal('usage: node dist/replay.js [first seq [last seq]]');
  process.exit(2);
}
const { DATABASE_URL } = loadConfig({
  DATABASE_URL: {
    description: 'PostgreSQL, as the role `latchkey_jobs`',
    secret: true,
    schema: settingSchema.url('postgres:', 'postgresql:'),
  },
});
const client = new Client({ connectionString: DATABASE_URL });
await client.connect();
try {
  const { rowCount } = await client.query(
    `UPDATE siem_batches SET state = 'due', attempts = 0, next_at = now()
     WHERE state = 'dead' AND to_seq >= $1 AND from_seq <= $2`,
    [from, to],
  );
  logger.info(
    { batches: rowCount },
    rowCount ? 'dead letters will be sent again' : 'there are no dead letters in this range',
  );
} finally {
  await client.end();
}
