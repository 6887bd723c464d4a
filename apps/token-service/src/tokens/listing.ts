import type { ListTokensQuery, Token } from '@latchkey/contracts';
import type { Order } from './order.js';

// For the benchmark, which prints the plans of these statements.
export { LIST_SETTINGS } from '../database/index.js';
export { Order } from './order.js';

/** The status is not stored: it is derived from the row and the current time. */
export const STATUS = `CASE
  WHEN t.revoked_at IS NOT NULL THEN 'revoked'
  WHEN t.ends_at <= now() THEN 'expired'
  WHEN t.disabled_at IS NOT NULL OR t.disabled_above THEN 'disabled'
  ELSE 'active' END`;

/** The part of the status that does not depend on the time, as in the indexes `tokens_by_state` and `tokens_by_owner_state`. */
const STATE = `(CASE WHEN t.revoked_at IS NOT NULL THEN 'revoked'
  WHEN t.disabled_at IS NOT NULL OR t.disabled_above THEN 'disabled' ELSE 'live' END)`;

/** The states that can contain tokens of a status. */
const STATES: Record<Token['status'], string[]> = {
  active: [`${STATE} = 'live'`],
  revoked: [`${STATE} = 'revoked'`],
  expired: [`${STATE} = 'live'`, `${STATE} = 'disabled'`],
  disabled: [`${STATE} = 'disabled'`],
};

/** The part of the status that depends on the time, as in the indexes `tokens_by_end` and `tokens_by_owner_end`. */
const EXPIRY: Partial<Record<Token['status'], string>> = {
  active: `COALESCE(t.ends_at, 'infinity') > now()`,
  expired: `COALESCE(t.ends_at, 'infinity') <= now()`,
};

/** How many tokens are scanned in order before all matches are read by their own index and sorted. */
const NEAR = 1_000;
/** The same when the first scan found some matches but not enough: then there are too many to sort. */
const WIDE = 16_000;

/** Columns that the match condition can use. */
const SCANNED_COLUMNS = 't.id, t.created_at, t.name, t.start, t.ends_at, t.revoked_at, t.disabled_at, t.disabled_above';

/** Characters after which a search assumes the start of a word. */
const SEPARATORS = [' ', '-', '_', '.', '/', ':', '#', '@', '('];
export const escapeLike = (text: string): string => text.replace(/[\\%_]/g, '\\$&');
/** The search key of a text, as the database function `name_sought` computes it. */
const searchKey = (text: string): string =>
  [...Buffer.from(text.toLowerCase())]
    .map((byte) => (byte >= 128 ? `\\${byte.toString(8)}` : byte === 92 ? '\\\\' : String.fromCharCode(byte)))
    .join('');

/** Most characters of a search that use the index: each of their trigrams is a list to read. */
const INDEXED_CHARACTERS_MAX = 6;
const NUMBER_CHARACTERS_MAX = 8;
const WORDS_MAX = 4;

/**
 * Pieces of a search, one from each of its longest words, numbers first: few and selective. A number keeps the characters
 * around it, which mark where it starts and ends.
 */
function selectivePieces(q: string): string[] {
  const text = searchKey(q);
  const words = [...text.matchAll(/(?:[a-z0-9]|\\[0-7]{3}){3,}/g)].map(({ 0: word, index }) => ({
    characters: word.match(/\\[0-7]{3}|./g)!,
    isNumber: /\d/.test(word),
    before: text.slice(0, index).slice(-1),
    after: text.slice(index + word.length).slice(0, 1),
  }));
  const best = words
    .sort((a, b) => Number(b.isNumber) - Number(a.isNumber) || b.characters.length - a.characters.length)
    .slice(0, WORDS_MAX);
  const charactersMax = Math.ceil(INDEXED_CHARACTERS_MAX / Math.max(1, best.length)) + 2;
  return best.map(({ characters, isNumber, before, after }) => {
    if (!isNumber) return characters.slice(0, charactersMax).join('');
    const isWhole = characters.length <= NUMBER_CHARACTERS_MAX;
    return `${before}${characters.slice(0, NUMBER_CHARACTERS_MAX).join('')}${isWhole ? after : ''}`;
  });
}

/**
 * LIKE patterns for a name: a search matches anywhere in it, or, when it is too short for the trigrams of the index, at the
 * start of a word. A search without letters and digits matches at the start of the name.
 * @returns one of `exact` must match `lower(name)`; all of one list of `indexed`, which is looser, must match
 *   `name_sought(name)`
 */
export function namePatterns(q: string): { exact: string[]; indexed: string[][] } {
  const exact = escapeLike(q.toLowerCase());
  const indexed = escapeLike(searchKey(q));
  const pieces = selectivePieces(q);
  if (pieces.length) return { exact: [`%${exact}%`], indexed: [pieces.map((piece) => `%${escapeLike(piece)}%`)] };
  if (!/[a-z0-9]/.test(indexed)) return { exact: [`${exact}%`], indexed: [[`${indexed}%`]] };
  const before = ['', ...SEPARATORS.map((separator) => `%${escapeLike(separator)}`)];
  return { exact: before.map((start) => `${start}${exact}%`), indexed: before.map((start) => [`${start}${indexed}%`]) };
}

/**
 * Selects the ids of one page of tokens, and one more, in order. The cost depends on the page, not on the number of tokens:
 * without a search the page is read from an index in order; with one, the next tokens in order are scanned first (frequent
 * matches are among them), and only if those are too few, all matches are read by the index of names (rare matches are
 * few) and sorted.
 * @param owners whose tokens; `all`: any
 * @param bind adds a value and returns its `$n`
 */
export function selectPage(
  query: Pick<ListTokensQuery, 'status' | 'q' | 'cursor' | 'limit'>,
  owners: 'all' | readonly string[],
  order: Order,
  bind: (value: unknown) => string,
): string {
  const after = query.cursor === undefined ? 'true' : order.after(query.cursor, bind);
  const limit = bind(query.limit + 1);
  const list = owners === 'all' ? '' : `${bind(owners)}::uuid[]`;
  const status = query.status === undefined ? 'true' : `${STATUS} = ${bind(query.status)}`;
  // Indexes by state exist only for the order of creation, and no index in order covers expiry.
  const states = query.status !== undefined && order.isByCreation ? STATES[query.status] : ['true'];
  const expiry = query.status && EXPIRY[query.status];
  const isReadInOrder = query.status === undefined || (order.isByCreation && !expiry);

  /** The next tokens in order: those of each owner and state by index, then the first of all of these. */
  const walk = (columns: string, rows: string) => {
    const ofState = (state: string) =>
      `(SELECT ${SCANNED_COLUMNS}, ${order.column} FROM tokens t WHERE ${list ? 't.owner_id = o.id AND ' : ''}${state}
        AND ${isReadInOrder ? status : 'true'} AND ${after} ${order.rows} LIMIT ${rows})`;
    const all = states.length === 1 ? ofState(states[0]!) : `(${states.map(ofState).join(' UNION ALL ')})`;
    const from = list ? `unnest(${list}) AS o(id) CROSS JOIN LATERAL ${all} t` : `${all} t`;
    return `SELECT ${columns} FROM ${from} ${order.selected} LIMIT ${rows}`;
  };
  if (query.q === undefined && isReadInOrder) return walk('t.id, t.sort_key', limit);

  const { exact, indexed } = query.q === undefined ? { exact: 'true', indexed: 'true' } : nameOrPrefix(query.q, bind);
  const fits = `${exact} AND ${isReadInOrder ? 'true' : status}`;
  // The index of names covers one owner.
  const ofOwners = !list
    ? 'true'
    : owners.length === 1
      ? `t.owner_id = ${bind(owners[0])}::uuid`
      : `t.owner_id = ANY (${list})`;
  const window = (size: number) =>
    bind(list ? Math.max(query.limit + 1, Math.ceil(size / Math.max(1, owners.length))) : size);
  const [near, wide] = [window(NEAR), window(WIDE)];
  const scanned = (rows: string) =>
    `SELECT t.id, t.sort_key, ${fits} AS fits FROM (${walk(`${SCANNED_COLUMNS}, t.sort_key`, rows)}) t`;
  const isPage = (rows: string) => `count(*) FILTER (WHERE fits) >= ${limit} OR count(*) < ${rows}`;
  return `WITH near AS MATERIALIZED (${scanned(near)}),
    seen AS MATERIALIZED (SELECT ${isPage(near)} AS done, count(*) FILTER (WHERE fits) > 0 AS promising FROM near),
    wide AS MATERIALIZED (${scanned(wide)} WHERE (SELECT promising AND NOT done FROM seen)),
    searched AS MATERIALIZED (SELECT (SELECT promising AND NOT done FROM seen) AND (${isPage(wide)}) AS done FROM wide),
    far AS MATERIALIZED (SELECT t.id, ${order.column} FROM tokens t
      WHERE NOT (SELECT done FROM seen) AND NOT (SELECT done FROM searched) AND ${indexed} AND ${fits}
      AND ((${states.join(') OR (')})) AND ${isReadInOrder ? status : (expiry ?? 'true')} AND ${ofOwners} AND ${after})
    SELECT t.id, t.sort_key FROM (
      SELECT id, sort_key FROM near WHERE fits AND (SELECT done FROM seen) UNION ALL
      SELECT id, sort_key FROM wide WHERE fits AND (SELECT done FROM searched) UNION ALL
      SELECT id, sort_key FROM far) t ${order.selected} LIMIT ${limit}`;
}

/** Conditions for a search: exact ones, and looser ones that have an index. */
function nameOrPrefix(q: string, bind: (value: unknown) => string): { exact: string; indexed: string } {
  const { exact, indexed } = namePatterns(q);
  const start = `t.start LIKE ${bind(`${escapeLike(q)}%`)}`;
  const either = (conditions: string[]) => `(${[...conditions, start].join(' OR ')})`;
  const keyMatches = (pattern: string) => `name_sought(t.name) LIKE ${bind(pattern)}`;
  return {
    exact: either(exact.map((pattern) => `lower(t.name) LIKE ${bind(pattern)}`)),
    indexed: either(indexed.map((all) => `(${all.map(keyMatches).join(' AND ')})`)),
  };
}
