import { LIMITS, type RevocationReason, type TokenFilter } from '@latchkey/contracts';
import type { Statement } from '../database/index.js';
import { literal, STATUS } from './listing.js';

/** What a filter was found to name. */
export interface Named {
  /** That are not revoked. */
  matched: number;
  /** Those that are to be confirmed once more, and, as exposed, those whose closure is to be ended, besides. */
  members: number;
}

/** One more than may be named, so that too many are noticed and no more than that are read. */
const READ_MAX = LIMITS.revokeManyMax + 1;

type Place = (value: unknown) => string;

/** Conditions on `tokens t`: what fits all members of the filter but its status. */
function fits(filter: TokenFilter, owners: 'all' | readonly string[], place: Place): string {
  return [
    owners === 'all' ? 'true' : `t.owner_id = ANY (${place(owners)}::uuid[])`,
    filter.createdBefore === undefined ? 'true' : `t.created_at < ${place(new Date(filter.createdBefore))}`,
    filter.prefix === undefined ? 'true' : `t.start LIKE ${place(`${literal(filter.prefix)}%`)}`,
  ].join(' AND ');
}

const living = ({ status }: TokenFilter, place: Place): string =>
  `t.revoked_at IS NULL AND ${status === undefined ? 'true' : `${STATUS} = ${place(status)}`}`;

/** In: filter, whose tokens. Out: how many of those are not revoked, and the ids of the newest. */
export function selectMatching(filter: TokenFilter, owners: 'all' | readonly string[]): Statement {
  const values: unknown[] = [];
  const place: Place = (value) => `$${values.push(value)}`;
  return [
    `WITH chosen AS MATERIALIZED (
       SELECT t.id, t.created_at FROM tokens t WHERE ${fits(filter, owners, place)} AND ${living(filter, place)} LIMIT ${READ_MAX})
     SELECT (SELECT count(*)::int FROM chosen) AS matched,
       ARRAY(SELECT id FROM chosen ORDER BY created_at DESC, id DESC LIMIT ${LIMITS.revokePreviewMax}) AS newest`,
    values,
  ];
}

/**
 * In: exposure, filter, whose tokens, why. Out: `Named`. Makes members of the tokens that are not revoked; of those revoked
 * already where nobody knows that no verifier accepts them, so that this one does not answer before that; and, as exposed,
 * of all others that are revoked: what they were shown may live.
 */
export function insertNamed(
  exposureId: string,
  filter: TokenFilter,
  owners: 'all' | readonly string[],
  reason: RevocationReason,
): Statement {
  const values: unknown[] = [];
  const place: Place = (value) => `$${values.push(value)}`;
  const isReachedFurther = reason === 'exposed' && (filter.status === undefined || filter.status === 'revoked');
  const ended = `t.revoked_at IS NOT NULL${isReachedFurther ? '' : ' AND t.receipt IS NULL'}`;
  return [
    `WITH chosen AS MATERIALIZED (
       SELECT t.id, t.revoked_at IS NULL AS living FROM tokens t
       WHERE ${fits(filter, owners, place)} AND (${living(filter, place)} OR ${ended}) LIMIT ${READ_MAX}
     ), named AS (
       INSERT INTO exposure_members (exposure_id, token_id, covered, confirmed, sought)
       SELECT ${place(exposureId)}, id, false, false, 'itself' FROM chosen ORDER BY id)
     SELECT count(*)::int AS members, count(*) FILTER (WHERE living)::int AS matched FROM chosen`,
    values,
  ];
}

/** In: who. Out: a row for each set of theirs that is not ended yet. */
export const selectUnended = (actor: string): Statement => [
  'SELECT id FROM exposures WHERE filter IS NOT NULL AND ended_at IS NULL AND actor_id = $1',
  [actor],
];
