import { LIMITS, type RevocationReason, type TokenFilter } from '@latchkey/contracts';
import type { Statement } from '../database/index.js';
import { escapeLike, STATUS } from './listing.js';

/** How many tokens a filter matches. */
export interface MatchCounts {
  /** Not revoked. */
  matched: number;
  /** Also those whose revocation must be confirmed again, and with reason `exposed` those whose closure must be revoked. */
  members: number;
}

/** One more than the limit, so that exceeding it is noticed and no more rows are read. */
const READ_MAX = LIMITS.revokeManyMax + 1;

type Bind = (value: unknown) => string;

/** Conditions on `tokens t` for every field of the filter but its status. */
function conditions(filter: TokenFilter, owners: 'all' | readonly string[], bind: Bind): string {
  return [
    owners === 'all' ? 'true' : `t.owner_id = ANY (${bind(owners)}::uuid[])`,
    filter.createdBefore === undefined ? 'true' : `t.created_at < ${bind(new Date(filter.createdBefore))}`,
    filter.prefix === undefined ? 'true' : `t.start LIKE ${bind(`${escapeLike(filter.prefix)}%`)}`,
  ].join(' AND ');
}

const living = ({ status }: TokenFilter, bind: Bind): string =>
  `t.revoked_at IS NULL AND ${status === undefined ? 'true' : `${STATUS} = ${bind(status)}`}`;

/** In: filter, owners. Out: the number of matching tokens that are not revoked, and the ids of the newest. */
export function selectMatching(filter: TokenFilter, owners: 'all' | readonly string[]): Statement {
  const values: unknown[] = [];
  const bind: Bind = (value) => `$${values.push(value)}`;
  return [
    `WITH chosen AS MATERIALIZED (
       SELECT t.id, t.created_at FROM tokens t WHERE ${conditions(filter, owners, bind)} AND ${living(filter, bind)} LIMIT ${READ_MAX})
     SELECT (SELECT count(*)::int FROM chosen) AS matched,
       ARRAY(SELECT id FROM chosen ORDER BY created_at DESC, id DESC LIMIT ${LIMITS.revokePreviewMax}) AS newest`,
    values,
  ];
}

/**
 * In: exposure, filter, owners, reason. Out: `MatchCounts`. Makes members of matching tokens: those not revoked; those whose
 * revocation is not confirmed, so that this request waits for it; and with reason `exposed` all other revoked ones, since
 * tokens shown to them can still be live.
 */
export function insertNamed(
  exposureId: string,
  filter: TokenFilter,
  owners: 'all' | readonly string[],
  reason: RevocationReason,
): Statement {
  const values: unknown[] = [];
  const bind: Bind = (value) => `$${values.push(value)}`;
  const includesRevoked = reason === 'exposed' && (filter.status === undefined || filter.status === 'revoked');
  const ended = `t.revoked_at IS NOT NULL${includesRevoked ? '' : ' AND t.receipt IS NULL'}`;
  return [
    `WITH chosen AS MATERIALIZED (
       SELECT t.id, t.revoked_at IS NULL AS living FROM tokens t
       WHERE ${conditions(filter, owners, bind)} AND (${living(filter, bind)} OR ${ended}) LIMIT ${READ_MAX}
     ), named AS (
       INSERT INTO exposure_members (exposure_id, token_id, covered, confirmed, sought)
       SELECT ${bind(exposureId)}, id, false, false, 'itself' FROM chosen ORDER BY id)
     SELECT count(*)::int AS members, count(*) FILTER (WHERE living)::int AS matched FROM chosen`,
    values,
  ];
}

/** In: actor. Out: a row for each set of theirs that is not completely revoked yet. */
export const selectUnfinished = (actor: string): Statement => [
  'SELECT id FROM exposures WHERE filter IS NOT NULL AND ended_at IS NULL AND actor_id = $1',
  [actor],
];
