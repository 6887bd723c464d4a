import type { ListTokensQuery, Token } from '@latchkey/contracts';
import type { Order } from './order.js';

// For the benchmark, which shows the plans of these very statements.
export { LIST_SETTINGS } from '../database/index.js';
export { Order } from './order.js';

/** The status is never stored: it follows from what happened, and from the time. */
export const STATUS = `CASE
  WHEN t.revoked_at IS NOT NULL THEN 'revoked'
  WHEN t.ends_at <= now() THEN 'expired'
  WHEN t.disabled_at IS NOT NULL OR t.disabled_above THEN 'disabled'
  ELSE 'active' END`;

/** What was written down of the status, as the indexes `tokens_by_state` and `tokens_by_owner_state` have it. */
const STATE = `(CASE WHEN t.revoked_at IS NOT NULL THEN 'revoked'
  WHEN t.disabled_at IS NOT NULL OR t.disabled_above THEN 'disabled' ELSE 'live' END)`;

/** Where tokens of a status are to be looked for; not all that is found there has it. */
const POOLS: Record<Token['status'], string[]> = {
  active: [`${STATE} = 'live'`],
  revoked: [`${STATE} = 'revoked'`],
  expired: [`${STATE} = 'live'`, `${STATE} = 'disabled'`],
  disabled: [`${STATE} = 'disabled'`],
};

/** What the clock alone tells, as `tokens_by_end` and `tokens_by_owner_end` have it. */
const ENDS: Partial<Record<Token['status'], string>> = {
  active: `COALESCE(t.ends_at, 'infinity') > now()`,
  expired: `COALESCE(t.ends_at, 'infinity') <= now()`,
};

/** How many tokens are looked through, in order, before all that fit are gathered by their own index and then sorted. */
const NEAR = 1_000;
/** The same when some fitted among the first, but not enough: then there are too many to gather. */
const WIDE = 16_000;

/** What `fits` may look at. */
const LOOKED_AT = 't.id, t.created_at, t.name, t.start, t.ends_at, t.revoked_at, t.disabled_at, t.disabled_above';

/** What a search takes for the beginning of a word. */
const SEPARATORS = [' ', '-', '_', '.', '/', ':', '#', '@', '('];
export const literal = (text: string): string => text.replace(/[\\%_]/g, '\\$&');
/** As the function `name_sought` of the database writes it. */
const sought = (text: string): string =>
  [...Buffer.from(text.toLowerCase())]
    .map((byte) => (byte >= 128 ? `\\${byte.toString(8)}` : byte === 92 ? '\\\\' : String.fromCharCode(byte)))
    .join('');

/** Most letters of what is sought that the index is asked for: each of its trigrams is a list to be read. */
const INDEXED_LETTERS = 6;
const NUMBER_LETTERS = 8;
const WORDS_MAX = 4;

/**
 * Pieces of what is sought, one from each of its longest words, numbers first: few that together say much. A number
 * keeps the signs around it, which say where it begins and ends.
 */
function pieces(q: string): string[] {
  const text = sought(q);
  const words = [...text.matchAll(/(?:[a-z0-9]|\\[0-7]{3}){3,}/g)].map(({ 0: word, index }) => ({
    letters: word.match(/\\[0-7]{3}|./g)!,
    isNumber: /\d/.test(word),
    before: text.slice(0, index).slice(-1),
    after: text.slice(index + word.length).slice(0, 1),
  }));
  const best = words
    .sort((a, b) => Number(b.isNumber) - Number(a.isNumber) || b.letters.length - a.letters.length)
    .slice(0, WORDS_MAX);
  const lettersMax = Math.ceil(INDEXED_LETTERS / Math.max(1, best.length)) + 2;
  return best.map(({ letters, isNumber, before, after }) => {
    if (!isNumber) return letters.slice(0, lettersMax).join('');
    const isWhole = letters.length <= NUMBER_LETTERS;
    return `${before}${letters.slice(0, NUMBER_LETTERS).join('')}${isWhole ? after : ''}`;
  });
}

/**
 * LIKE patterns for a name: what is sought anywhere in it, or, when it is too short for the trigrams of the index, at
 * the beginning of a word. What has no letter at all is sought at the beginning of the name.
 * @returns any of `exact` must fit `lower(name)`; of `indexed`, looser, all of one list must fit `name_sought(name)`
 */
export function namePatterns(q: string): { exact: string[]; indexed: string[][] } {
  const exact = literal(q.toLowerCase());
  const indexed = literal(sought(q));
  const parts = pieces(q);
  if (parts.length) return { exact: [`%${exact}%`], indexed: [parts.map((part) => `%${literal(part)}%`)] };
  if (!/[a-z0-9]/.test(indexed)) return { exact: [`${exact}%`], indexed: [[`${indexed}%`]] };
  const before = ['', ...SEPARATORS.map((separator) => `%${literal(separator)}`)];
  return { exact: before.map((start) => `${start}${exact}%`), indexed: before.map((start) => [`${start}${indexed}%`]) };
}

/**
 * Selects the ids of one page of tokens, and one more, in order. What costs depends on the page, not on how many tokens
 * there are: without a search it is read off an index in order; with one, the next tokens in order are looked through
 * first (what is frequent is among them), and only if those are too few all that fit are gathered by the index of names
 * (what is rare is few) and sorted.
 * @param owners whose tokens; `all` for everybody's
 * @param place takes a value and answers its `$n`
 */
export function selectPage(
  query: Pick<ListTokensQuery, 'status' | 'q' | 'cursor' | 'limit'>,
  owners: 'all' | readonly string[],
  order: Order,
  place: (value: unknown) => string,
): string {
  const after = query.cursor === undefined ? 'true' : order.after(query.cursor, place);
  const wanted = place(query.limit + 1);
  const list = owners === 'all' ? '' : `${place(owners)}::uuid[]`;
  const status = query.status === undefined ? 'true' : `${STATUS} = ${place(query.status)}`;
  // Only by time of creation is there an index for each state; and whether one has ended, no index in order tells.
  const pools = query.status !== undefined && order.isByCreation ? POOLS[query.status] : ['true'];
  const ends = query.status && ENDS[query.status];
  const isReadInOrder = query.status === undefined || (order.isByCreation && !ends);

  /** The next tokens in order. For each owner and pool its own by index, then the first of all of those. */
  const walk = (columns: string, rows: string) => {
    const ofPool = (pool: string) =>
      `(SELECT ${LOOKED_AT}, ${order.column} FROM tokens t WHERE ${list ? 't.owner_id = o.id AND ' : ''}${pool}
        AND ${isReadInOrder ? status : 'true'} AND ${after} ${order.rows} LIMIT ${rows})`;
    const pooled = pools.length === 1 ? ofPool(pools[0]!) : `(${pools.map(ofPool).join(' UNION ALL ')})`;
    const from = list ? `unnest(${list}) AS o(id) CROSS JOIN LATERAL ${pooled} t` : `${pooled} t`;
    return `SELECT ${columns} FROM ${from} ${order.selected} LIMIT ${rows}`;
  };
  if (query.q === undefined && isReadInOrder) return walk('t.id, t.sort_key', wanted);

  const { exact, indexed } = query.q === undefined ? { exact: 'true', indexed: 'true' } : nameOrStart(query.q, place);
  const fits = `${exact} AND ${isReadInOrder ? 'true' : status}`;
  // One owner stands in the index of names too.
  const ofOwners = !list
    ? 'true'
    : owners.length === 1
      ? `t.owner_id = ${place(owners[0])}::uuid`
      : `t.owner_id = ANY (${list})`;
  const window = (size: number) =>
    place(list ? Math.max(query.limit + 1, Math.ceil(size / Math.max(1, owners.length))) : size);
  const [near, wide] = [window(NEAR), window(WIDE)];
  const looked = (rows: string) =>
    `SELECT t.id, t.sort_key, ${fits} AS fits FROM (${walk(`${LOOKED_AT}, t.sort_key`, rows)}) t`;
  const isPage = (rows: string) => `count(*) FILTER (WHERE fits) >= ${wanted} OR count(*) < ${rows}`;
  return `WITH near AS MATERIALIZED (${looked(near)}),
    seen AS MATERIALIZED (SELECT ${isPage(near)} AS done, count(*) FILTER (WHERE fits) > 0 AS promising FROM near),
    wide AS MATERIALIZED (${looked(wide)} WHERE (SELECT promising AND NOT done FROM seen)),
    searched AS MATERIALIZED (SELECT (SELECT promising AND NOT done FROM seen) AND (${isPage(wide)}) AS done FROM wide),
    far AS MATERIALIZED (SELECT t.id, ${order.column} FROM tokens t
      WHERE NOT (SELECT done FROM seen) AND NOT (SELECT done FROM searched) AND ${indexed} AND ${fits}
      AND ((${pools.join(') OR (')})) AND ${isReadInOrder ? status : (ends ?? 'true')} AND ${ofOwners} AND ${after})
    SELECT t.id, t.sort_key FROM (
      SELECT id, sort_key FROM near WHERE fits AND (SELECT done FROM seen) UNION ALL
      SELECT id, sort_key FROM wide WHERE fits AND (SELECT done FROM searched) UNION ALL
      SELECT id, sort_key FROM far) t ${order.selected} LIMIT ${wanted}`;
}

/** Conditions for what is sought: exact ones, and looser ones that have an index. */
function nameOrStart(q: string, place: (value: unknown) => string): { exact: string; indexed: string } {
  const { exact, indexed } = namePatterns(q);
  const start = `t.start LIKE ${place(`${literal(q)}%`)}`;
  const either = (conditions: string[]) => `(${[...conditions, start].join(' OR ')})`;
  const sought = (pattern: string) => `name_sought(t.name) LIKE ${place(pattern)}`;
  return {
    exact: either(exact.map((pattern) => `lower(t.name) LIKE ${place(pattern)}`)),
    indexed: either(indexed.map((all) => `(${all.map(sought).join(' AND ')})`)),
  };
}
