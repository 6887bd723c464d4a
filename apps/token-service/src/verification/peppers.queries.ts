import type { Statement } from '../database/index.js';

/** How long a running token-service can be silent before the others stop counting it, in seconds. */
export const SILENT_SECONDS_MAX = 20;

/** A pepper that this database knows. */
export interface PepperRow {
  id: number;
  /** Hexadecimal. */
  fingerprint: string;
  /** Rows without a `pepper_id` can depend on it. */
  unmarked: boolean;
  firstUsedAt: Date | null;
  /** Something depends on it, as far as is known. */
  inUse: boolean;
  /** A running token-service has it as its current one. */
  isCurrent: boolean;
  /** A running token-service lacks it. */
  isLacked: boolean;
  /** It has been in use for so long that every running token-service has had time to say that it lacks it. */
  isSettled: boolean;
}

const IN_USE = 'first_used_at IS NOT NULL AND unused_at IS NULL AND given_up_at IS NULL';
const RECENTLY = `> now() - interval '${SILENT_SECONDS_MAX} s'`;
const JUST_NOW = `now() - interval '4 s'`;

/** In: nothing. Out: a `PepperRow` of each, oldest first. */
export const SELECT_PEPPERS = `SELECT id, encode(fingerprint, 'hex') AS fingerprint, unmarked, first_used_at AS "firstUsedAt",
    ${IN_USE} AS "inUse", COALESCE(current_at ${RECENTLY}, false) AS "isCurrent",
    COALESCE(lacked_at ${RECENTLY}, false) AS "isLacked", COALESCE(NOT first_used_at ${RECENTLY}, false) AS "isSettled"
  FROM peppers ORDER BY id`;

/**
 * An expression: the fingerprints of peppers in use that the caller lacks; NULL: none. For the statement whose empty result
 * it explains, so that both are of one moment.
 * @param own the placeholder of the caller's fingerprints, as `bytea[]`
 */
export const lackingOf = (own: string): string =>
  `(SELECT array_agg(encode(fingerprint, 'hex') ORDER BY id) FROM peppers WHERE ${IN_USE} AND fingerprint <> ALL (${own}))`;

/** In: the caller's fingerprints. Out: one row with the fingerprints that it `lacks`, or NULL. */
export const selectLacking = (own: readonly Buffer[]): Statement => [
  `SELECT ${lackingOf('$1::bytea[]')} AS lacking`,
  [own],
];

/** One start at a time; reads go on. */
export const LOCK_PEPPERS: Statement = ['LOCK TABLE peppers IN SHARE ROW EXCLUSIVE MODE'];

/**
 * In: fingerprints, the first of the current pepper; whether these are the first ever. Stores them: the current one as in
 * use, and at the first start all of them, because any can have written what is there.
 */
export const recordPeppers = (own: readonly Buffer[], isFirst: boolean): Statement[] => [
  [
    `INSERT INTO peppers (fingerprint, unmarked, first_used_at)
     SELECT f, $2, CASE WHEN $2 THEN now() END FROM unnest($1::bytea[]) WITH ORDINALITY AS o(f, n)
     WHERE NOT EXISTS (SELECT 1 FROM peppers WHERE fingerprint = f) ORDER BY n`,
    [own, isFirst],
  ],
  ['UPDATE peppers SET given_up_at = NULL WHERE fingerprint = ANY ($1) AND given_up_at IS NOT NULL', [own]],
];

/**
 * In: the caller's fingerprints, the first of the current pepper. Stores that a running token-service writes under that
 * one, and which peppers in use it lacks; writes nothing when another replica has just stored the same.
 */
export const announcePeppers = (own: readonly Buffer[]): Statement[] => [
  [
    `UPDATE peppers SET first_used_at = COALESCE(first_used_at, now()), current_at = now(), unused_at = NULL
     WHERE fingerprint = $1
       AND (first_used_at IS NULL OR unused_at IS NOT NULL OR current_at IS NULL OR current_at < ${JUST_NOW})`,
    [own[0]],
  ],
  [
    `UPDATE peppers SET lacked_at = now()
     WHERE ${IN_USE} AND fingerprint <> ALL ($1::bytea[]) AND (lacked_at IS NULL OR lacked_at < ${JUST_NOW})`,
    [own],
  ],
];

/** In: peppers on which nothing depends. Stores that, unless a running token-service writes under one. */
export const markUnused = (ids: readonly number[]): Statement => [
  `UPDATE peppers SET unused_at = now() WHERE id = ANY ($1::smallint[]) AND NOT COALESCE(current_at ${RECENTLY}, false)`,
  [ids],
];

/** In: peppers. Stores that an operator gives them up. */
export const giveUp = (ids: readonly number[]): Statement => [
  'UPDATE peppers SET given_up_at = now() WHERE id = ANY ($1::smallint[]) AND given_up_at IS NULL',
  [ids],
];

/** What stops working without a pepper. */
export interface Dependents {
  /** Neither revoked nor expired. */
  tokens: number;
  secondFactors: number;
  /** People with unused recovery codes. */
  recoveryCodes: number;
}

/**
 * In: nothing. Out: `Dependents` by `pepperId`; null: of rows without one. Reads the whole table of tokens: an index would
 * cost every write, for a number that is wanted during a rotation.
 */
export const COUNT_DEPENDENTS = `SELECT "pepperId", sum(tokens)::int AS tokens, sum(factors)::int AS "secondFactors",
    sum(people)::int AS "recoveryCodes"
  FROM (
    SELECT pepper_id AS "pepperId", count(*) AS tokens, 0 AS factors, 0 AS people FROM tokens
    WHERE revoked_at IS NULL AND (ends_at IS NULL OR ends_at > now()) GROUP BY 1
    UNION ALL
    SELECT pepper_id, 0, count(*), 0 FROM second_factors WHERE confirmed_at IS NOT NULL GROUP BY 1
    UNION ALL
    SELECT pepper_id, 0, 0, count(DISTINCT user_id) FROM recovery_codes GROUP BY 1
  ) counted GROUP BY 1`;

/**
 * In: tokens, a hash that each can have now and its hash under the current pepper, that pepper. Skips a token that another
 * transaction has locked, and one whose hash is another by now.
 */
export const REHASH = `WITH due AS MATERIALIZED (
    SELECT t.id, e.new FROM unnest($1::uuid[], $2::bytea[], $3::bytea[]) AS e(id, old, new)
    JOIN tokens t ON t.id = e.id AND t.hash = e.old
    WHERE NOT EXISTS (SELECT 1 FROM tokens d WHERE d.hash = e.new AND d.id <> e.id)
    ORDER BY t.id FOR UPDATE OF t SKIP LOCKED)
  UPDATE tokens t SET hash = due.new, pepper_id = $4 FROM due WHERE t.id = due.id RETURNING t.id`;
