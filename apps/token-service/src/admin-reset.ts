import { parseArgs } from 'node:util';
import { ConfigError, loadConfig, newId, type Settings, settingSchema } from '@latchkey/runtime';
import { Client } from 'pg';
import { codeDigest, newResetCode, RESET_SECONDS } from './accounts/index.js';

/**
 * `latchkey admin reset`: a one-time code with which an administrator sets a new password, for operators who can read the
 * service's own database settings. For the case that no administrator can sign in, after a restore for instance. Audited.
 */
export const settings = {
  DATABASE_URL: {
    description: 'PostgreSQL, as the role latchkey_service',
    secret: true,
    schema: settingSchema.url('postgres:', 'postgresql:'),
  },
} satisfies Settings;

const HELP = `admin-reset <email>

Prints a code with which this administrator sets a new password within an hour ("I have a code" on the sign-in page).
A second factor stays in force. Reads DATABASE_URL, as the token-service does.
`;

class CommandError extends Error {}

async function run(args: readonly string[]): Promise<void> {
  const { values, positionals } = parseArgs({
    args: [...args],
    options: { help: { type: 'boolean', short: 'h', default: false } },
    allowPositionals: true,
  });
  const [email, ...more] = positionals;
  if (values.help) {
    process.stdout.write(HELP);
    return;
  }
  if (email === undefined || more.length > 0) throw new CommandError('name one email address; see --help');
  const client = new Client({ connectionString: loadConfig(settings).DATABASE_URL });
  await client.connect();
  try {
    await client.query('BEGIN');
    const found = await client.query<{ id: string; name: string }>(
      `SELECT id, name FROM users WHERE email = $1 AND role = 'admin' AND disabled_at IS NULL FOR NO KEY UPDATE`,
      [email.toLowerCase()],
    );
    const [person] = found.rows;
    if (!person) throw new CommandError(`there is no enabled administrator with the address ${email}`);
    const code = newResetCode();
    const expiresAt = new Date(Date.now() + RESET_SECONDS * 1_000);
    await client.query('DELETE FROM password_resets WHERE user_id = $1', [person.id]);
    await client.query('INSERT INTO password_resets (user_id, hash, expires_at) VALUES ($1, $2, $3)', [
      person.id,
      codeDigest(code),
      expiresAt,
    ]);
    await client.query(
      `INSERT INTO audit_events (id, at, actor_type, actor_name, action, subject_type, subject_id, subject_name, details)
       VALUES ($1, $2, 'system', 'admin-reset', 'user.updated', 'user', $3, $4, $5)`,
      [newId(), new Date(), person.id, person.name, { password: 'reset begun', by: 'command' }],
    );
    await client.query('COMMIT');
    process.stdout.write(`code: ${code}\nvalid until ${expiresAt.toISOString()}, once\n`);
  } finally {
    await client.end();
  }
}

try {
  await run(process.argv.slice(2));
} catch (error) {
  const isKnown = error instanceof CommandError || error instanceof ConfigError;
  const isUsage = (error as { code?: string }).code?.startsWith('ERR_PARSE_ARGS');
  process.stderr.write(`admin-reset: ${isKnown || isUsage ? '' : 'failed: '}${(error as Error).message}\n`);
  process.exitCode = 1;
}
