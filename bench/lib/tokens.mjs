/** Fills a database with tokens as a company would have them after two years, by SQL alone. */

export const OWNERS = { people: 2_000, projects: 200 };
/** The person who owns half of all tokens, and the project that owns a tenth. */
export const BIG_PERSON = '01000000-0000-7000-8000-000000000001';
export const BIG_PROJECT = '02000000-0000-7000-8000-000000000001';

const WORDS = {
  what: ['nightly', 'weekly', 'staging', 'production', 'canary', 'legacy', 'shared', 'temporary', 'release', 'audit'],
  verb: ['deploy', 'export', 'import', 'backup', 'sync', 'report', 'scrape', 'notify', 'index', 'migrate'],
  of: ['billing', 'inventory', 'documents', 'flows', 'search', 'mailing', 'payroll', 'metrics', 'images', 'contracts'],
  by: ['github actions', 'jenkins', 'airflow', 'terraform', 'grafana', 'zapier', 'claude', 'a laptop', 'cron', 'n8n'],
};
const list = (/** @type {string[]} */ words) => `(ARRAY[${words.map((word) => `'${word}'`).join(',')}])`;
/** Mixed well, so that no word clusters in time or with an owner. */
const pick = (/** @type {string[]} */ words, /** @type {number} */ salt) =>
  `${list(words)}[1 + abs(hashint8(n::bigint * 1000 + ${salt})::bigint) % ${words.length}]`;
const uuid = (/** @type {string} */ first, /** @type {string} */ number) =>
  `('${first}000000-0000-7000-8000-' || lpad((${number})::text, 12, '0'))::uuid`;

/** People and projects; each project has three members, the big project's owner is the big person. */
export const FILL_OWNERS = `
INSERT INTO users (id, email, name, role, created_at)
SELECT ${uuid('01', 'n')}, 'person' || n || '@example.org', 'Person ' || n, 'member', now() - interval '3 years' + n * interval '1 minute'
FROM generate_series(1, ${OWNERS.people}) n;
INSERT INTO projects (id, name, created_at)
SELECT ${uuid('02', 'n')}, 'Project ' || n, now() - interval '3 years' + n * interval '1 minute' FROM generate_series(1, ${OWNERS.projects}) n;
INSERT INTO members (project_id, user_id, role, created_at)
SELECT ${uuid('02', 'n')}, ${uuid('01', '1 + (n - 1 + k * 7) % 2000')}, (ARRAY['owner','editor','viewer'])[1 + k], now() - interval '2 years'
FROM generate_series(1, ${OWNERS.projects}) n, generate_series(0, 2) k;
`;

/**
 * Tokens `$1` to `$2` of `$3`, oldest first, spread over two years. Of ten, five are the big person's, one the big
 * project's, three other people's, one other projects'. Of a hundred, 15 are revoked and 25 expired; of 700, one is
 * disabled. Every thousandth is the child of another.
 */
export const FILL_TOKENS = `
INSERT INTO tokens (id, hash, kind, name, description, start, owner_user_id, project_id, created_by_type, created_by_id,
  ancestors, scopes, created_at, expires_at, disabled_at, revoked_at, revoked_by_type, revoked_by_id,
  revocation_reason)
SELECT id, sha256(('secret ' || n)::bytea), kind, name, '', 'lk_' || kind || '_' || substr(translate(encode(sha256(n::text::bytea), 'base64'), '+/', 'xy'), 1, 4),
  CASE kind WHEN 'pat' THEN owner END, CASE kind WHEN 'prj' THEN owner END, 'user', ${uuid('01', '1')},
  CASE WHEN n % 1000 = 999 THEN ARRAY[md5((n - 1)::text)::uuid] ELSE '{}' END,
  '{demo:read}', at, ends,
  CASE WHEN fate = 99 AND n % 7 = 0 THEN at + interval '1 hour' END,
  CASE WHEN fate < 15 THEN at + interval '1 day' END, CASE WHEN fate < 15 THEN 'user' END, CASE WHEN fate < 15 THEN ${uuid('01', '1')} END,
  CASE WHEN fate < 15 THEN 'no_longer_needed' END
FROM (
  SELECT n, md5(n::text)::uuid AS id, (n::bigint * 7919 % 1000003) % 100 AS fate,
    CASE WHEN n % 10 < 8 THEN 'pat' ELSE 'prj' END AS kind,
    CASE WHEN n % 10 < 5 THEN ${uuid('01', '1')} WHEN n % 10 < 8 THEN ${uuid('01', '2 + (n::bigint * 104729 % 1000003) % 1999')}
      WHEN n % 10 = 8 THEN ${uuid('02', '1')} ELSE ${uuid('02', '2 + (n::bigint * 104729 % 1000003) % 199')} END AS owner,
    ${pick(WORDS.what, 1)} || ' ' || ${pick(WORDS.verb, 2)} || ' of ' || ${pick(WORDS.of, 3)} || ' by ' || ${pick(WORDS.by, 4)} || ' #' || n AS name,
    date_trunc('milliseconds', now() - interval '2 years' + (interval '2 years' - interval '1 day') * n / $3) AS at,
    CASE WHEN (n::bigint * 7919 % 1000003) % 100 BETWEEN 15 AND 39 THEN date_trunc('milliseconds', now() - interval '2 years' + (interval '2 years' - interval '1 day') * n / $3 + interval '12 hours')
      WHEN n % 2 = 0 THEN date_trunc('milliseconds', now() + interval '1 year') END AS ends
  FROM generate_series($1::int, $2::int) n
) t`;

/** Uses of every second token. */
export const FILL_USAGE = `
INSERT INTO token_usage (token_id, last_used_at, last_used_ip, usage_count)
SELECT md5(n::text)::uuid, now(), '192.0.2.' || n % 250, n FROM generate_series($1::int, $2::int, 2) n`;

/** Name and start of the token `$1`. */
export const MIDDLE = `SELECT name, start FROM tokens WHERE id = md5($1::int::text)::uuid`;

const CHUNK = 50_000;

/** Adds tokens up to `count`; `from` of them are there already. @param {import('pg').ClientBase} client */
export async function fillTokens(client, from, count) {
  for (let first = from + 1; first <= count; first += CHUNK) {
    const last = Math.min(count, first + CHUNK - 1);
    await client.query(FILL_TOKENS, [first, last, count]);
    await client.query(FILL_USAGE, [first, last]);
  }
  await client.query('VACUUM ANALYZE');
}
