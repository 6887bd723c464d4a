import { FIRST_PARTY_CALLER, ticketedTokens, type UsageBatch, type UsageLine } from '@latchkey/contracts';
import type { EntityManager } from 'typeorm';
import type { JobContext } from '../job.js';
import { raiseNotices } from '../notices/index.js';

const HOUR_MS = 3_600_000;
/** Limit for the count of one line of a third party: what it reports cannot be checked. */
const THIRD_PARTY_COUNT_MAX = 100_000;
/** Prefix of routes that a third party names, to distinguish them from Latchkey's own. */
const THIRD_PARTY_ROUTE = 'external: ';
/** Lines of hours older than this, and of future hours, are counted in the nearest hour within. */
const OLDEST_HOURS = 31 * 24;

/** All that usage can be signed under: the current secret first, then those of before. */
export const usageSecretsOf = ({ USAGE_SECRET }: JobContext['config']): Buffer[] =>
  USAGE_SECRET.map((secret) => Buffer.from(secret));

export type BatchOutcome = 'applied' | 'repeated' | 'refused';

/**
 * Counts a batch and stores its number in one transaction, so that a repetition changes nothing. A batch with data that
 * PostgreSQL cannot store (class 22) is dropped, so that it is not retried for ever; when PostgreSQL is unavailable this
 * throws and the batch stays in the stream.
 */
export async function applyBatch(
  context: JobContext,
  { batch: sent, caller }: { batch: UsageBatch; caller: string },
): Promise<BatchOutcome> {
  const batch = caller === FIRST_PARTY_CALLER ? sent : ofThirdParty(context, sent, caller);
  try {
    return await context.database.transaction(async (db) => {
      const [fresh]: { now: number }[] = await db.query(
        `INSERT INTO usage_batches (verifier, sequence) VALUES ($1, $2) ON CONFLICT DO NOTHING
         RETURNING floor(extract(epoch FROM now()) * 1000)::float8 AS now`,
        [batch.verifier, batch.sequence],
      );
      if (!fresh) return 'repeated';
      const lines = await ofKnownTokens(db, batch.lines, fresh.now);
      if (lines.length > 0) {
        await raiseNotices(db, context.config, await unusualUses(db, lines));
        await addUp(db, lines);
      }
      if (batch.denials.length > 0) await storeDenials(db, batch);
      return 'applied';
    });
  } catch (error) {
    const code = (error as { code?: string }).code ?? '';
    if (!code.startsWith('22')) throw error;
    context.logger.error(
      { verifier: batch.verifier, sequence: batch.sequence, code },
      'a usage batch was dropped: PostgreSQL cannot store its data',
    );
    return 'refused';
  }
}

/** Of a third party, only lines of tokens that its caller has looked up count, with limited counts and prefixed routes. */
function ofThirdParty(context: JobContext, batch: UsageBatch, caller: string): UsageBatch {
  const lookedUp = ticketedTokens(usageSecretsOf(context.config), caller, batch);
  const route = (name: string) => `${THIRD_PARTY_ROUTE}${name}`.slice(0, 100);
  const lines = batch.lines.filter(({ tokenId }) => lookedUp.has(tokenId));
  const denials = batch.denials.filter(({ tokenId }) => tokenId !== null && lookedUp.has(tokenId));
  context.metrics.thirdPartyLinesDropped.inc(batch.lines.length - lines.length + batch.denials.length - denials.length);
  return {
    ...batch,
    lines: lines.map((line) => ({
      ...line,
      route: route(line.route),
      count: Math.min(line.count, THIRD_PARTY_COUNT_MAX),
    })),
    denials: denials.map((denial) => ({ ...denial, route: route(denial.route) })),
  };
}

/**
 * Lines of tokens that do not exist are dropped.
 * @param now PostgreSQL's clock, the one that all workers use
 */
async function ofKnownTokens(db: EntityManager, lines: readonly UsageLine[], now: number): Promise<UsageLine[]> {
  const ids = [...new Set(lines.map((l) => l.tokenId))];
  const rows: { id: string }[] = await db.query('SELECT id FROM tokens WHERE id = ANY($1::uuid[])', [ids]);
  const known = new Set(rows.map((r) => r.id));
  const newest = Math.floor(now / HOUR_MS) * HOUR_MS;
  return lines
    .filter((l) => known.has(l.tokenId))
    .map((l) => ({
      ...l,
      hourMs: Math.min(newest, Math.max(newest - OLDEST_HOURS * HOUR_MS, Math.floor(l.hourMs / HOUR_MS) * HOUR_MS)),
      firstSeenMs: Math.min(now, l.firstSeenMs),
      lastSeenMs: Math.min(now, l.lastSeenMs),
      route: storable(l.route),
      ip: storable(l.ip),
      userAgent: storable(l.userAgent),
    }));
}

/** PostgreSQL's text cannot contain NUL or lone surrogates. */
const storable = (text: string) => text.toWellFormed().replaceAll('\0', '\uFFFD');

const LINES = `jsonb_to_recordset($1::jsonb) AS l("tokenId" uuid, "hourMs" bigint, route text, status text, ip text,
  "userAgent" text, count bigint, "firstSeenMs" bigint, "lastSeenMs" bigint)`;

/**
 * In: a batch's lines. Adds them to usage_hourly and usage_callers, and the allowed ones to token_usage. Rows are
 * locked in the order of their keys, so that concurrent batches wait for each other and never deadlock.
 */
async function addUp(db: EntityManager, lines: readonly UsageLine[]): Promise<void> {
  const json = [JSON.stringify(lines)];
  await db.query(
    `INSERT INTO token_usage (token_id, last_used_at, last_used_ip, usage_count)
     SELECT "tokenId", to_timestamp(max("lastSeenMs") / 1000.0),
       (array_agg(ip ORDER BY "lastSeenMs" DESC))[1], sum(count)
     FROM ${LINES} WHERE status = 'allowed' GROUP BY 1 ORDER BY 1
     ON CONFLICT (token_id) DO UPDATE SET
       usage_count = token_usage.usage_count + excluded.usage_count,
       last_used_ip = CASE WHEN excluded.last_used_at >= token_usage.last_used_at
         THEN excluded.last_used_ip ELSE token_usage.last_used_ip END,
       last_used_at = greatest(token_usage.last_used_at, excluded.last_used_at)`,
    json,
  );
  await db.query(
    `INSERT INTO usage_hourly (token_id, hour, route, status, count)
     SELECT "tokenId", to_timestamp("hourMs" / 1000.0), route, status, sum(count)
     FROM ${LINES} GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
     ON CONFLICT (token_id, hour, route, status) DO UPDATE SET count = usage_hourly.count + excluded.count`,
    json,
  );
  await db.query(
    `INSERT INTO usage_callers (token_id, ip, user_agent, first_seen, last_seen, count)
     SELECT "tokenId", ip, "userAgent", to_timestamp(min("firstSeenMs") / 1000.0),
       to_timestamp(max("lastSeenMs") / 1000.0), sum(count)
     FROM ${LINES} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
     ON CONFLICT (token_id, ip, user_agent) DO UPDATE SET
       count = usage_callers.count + excluded.count,
       first_seen = least(usage_callers.first_seen, excluded.first_seen),
       last_seen = greatest(usage_callers.last_seen, excluded.last_seen)`,
    json,
  );
}

/** In: a batch's lines, before they are added up. Out: uses to notify the owner of. */
async function unusualUses(
  db: EntityManager,
  lines: readonly UsageLine[],
): Promise<{ key: string; kind: 'new_address' | 'used_after_rotation'; tokenId: string; details: { ip: string } }[]> {
  const json = [JSON.stringify(lines)];
  const fresh: { token: string; ip: string }[] = await db.query(
    `SELECT DISTINCT l."tokenId" AS token, l.ip FROM ${LINES}
     WHERE l.status = 'allowed' AND l.ip <> ''
       AND EXISTS (SELECT FROM usage_callers c WHERE c.token_id = l."tokenId")
       AND NOT EXISTS (SELECT FROM usage_callers c WHERE c.token_id = l."tokenId" AND c.ip = l.ip)`,
    json,
  );
  const late: { token: string; ip: string }[] = await db.query(
    `SELECT DISTINCT ON (l."tokenId") l."tokenId" AS token, l.ip FROM ${LINES}
     JOIN tokens t ON t.id = l."tokenId"
     WHERE l.status = 'revoked' AND t.rotated_to IS NOT NULL AND l."lastSeenMs" > extract(epoch FROM t.revoked_at) * 1000
     ORDER BY l."tokenId", l."lastSeenMs" DESC`,
    json,
  );
  return [
    ...fresh.map(({ token, ip }) => ({
      key: `new_address:${token}:${ip}`,
      kind: 'new_address' as const,
      tokenId: token,
      details: { ip },
    })),
    ...late.map(({ token, ip }) => ({
      key: `used_after_rotation:${token}`,
      kind: 'used_after_rotation' as const,
      tokenId: token,
      details: { ip },
    })),
  ];
}

async function storeDenials(db: EntityManager, batch: UsageBatch): Promise<void> {
  await db.query(
    `INSERT INTO denials (request_id, at, reason, token_id, route, method, ip)
     SELECT d."requestId", least(to_timestamp(d."atMs" / 1000.0), now()), d.reason, d."tokenId", d.route, d.method, d.ip
     FROM jsonb_to_recordset($1::jsonb) AS d("requestId" text, "atMs" bigint, reason text, "tokenId" uuid, route text,
       method text, ip text)
     ORDER BY d."requestId" ON CONFLICT (request_id) DO NOTHING`,
    [
      JSON.stringify(
        batch.denials.map((d) => ({
          ...d,
          requestId: storable(d.requestId),
          route: storable(d.route),
          method: storable(d.method),
          ip: storable(d.ip),
        })),
      ),
    ],
  );
}
