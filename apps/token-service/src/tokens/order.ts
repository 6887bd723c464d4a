import { isId, type ListTokensQuery } from '@latchkey/contracts';
import { badField, invalidCursor } from '../http/index.js';

type By = 'created' | 'name' | 'expires';
/** Sort keys, as in the indexes `tokens_by_…`; a token without an expiry sorts after all that have one. */
const KEYS: Record<By, string> = {
  created: 't.created_at',
  name: 'lower(t.name)',
  expires: `COALESCE(t.ends_at, 'infinity')`,
};
const TYPES: Record<By, string> = { created: 'timestamptz', name: 'text', expires: 'timestamptz' };
/** pg parses PostgreSQL's `infinity` as a number. */
type StoredKey = string | Date | number;

/** The order of a list of tokens: one column and the id, so that a page costs the same at any depth by an index. */
export class Order {
  readonly #by: By;
  readonly #descending: boolean;
  /** Selects the sort key as `sort_key`. */
  readonly column: string;

  constructor(readonly sort: ListTokensQuery['sort']) {
    this.#descending = sort.startsWith('-');
    this.#by = sort.replace('-', '') as By;
    this.column = `${KEYS[this.#by]} AS sort_key`;
  }

  get isByCreation(): boolean {
    return this.#by === 'created';
  }

  /** `ORDER BY …` for the rows of `tokens t`. */
  get rows(): string {
    return this.#orderBy(KEYS[this.#by]);
  }

  /** The same for rows that were selected with `column`. */
  get selected(): string {
    return this.#orderBy('t.sort_key');
  }

  #orderBy(key: string): string {
    const way = this.#descending ? 'DESC' : 'ASC';
    return `ORDER BY ${key} ${way}, t.id ${way}`;
  }

  /** The condition for rows after a cursor. `bind` adds a value and returns its `$n`. */
  after(cursor: string, bind: (value: unknown) => string): string {
    const { key, id } = this.#read(cursor);
    const sign = this.#descending ? '<' : '>';
    return `(${KEYS[this.#by]}, t.id) ${sign} (${bind(key)}::${TYPES[this.#by]}, ${bind(id)}::uuid)`;
  }

  /** A cursor at this row: the next page begins after it. */
  at(row: { id: string; sort_key: StoredKey }): string {
    const { sort_key: key } = row;
    const value = key instanceof Date ? key.getTime() : typeof key === 'number' ? null : key;
    return Buffer.from(JSON.stringify([this.sort, value, row.id])).toString('base64url');
  }

  /** @throws ApiError naming `cursor` when it is invalid or belongs to another order */
  #read(cursor: string): { key: string | Date; id: string } {
    const [sort, key, id] = parsed(cursor);
    if (typeof id !== 'string' || !isId(id)) throw invalidCursor();
    if (sort !== this.sort) throw badField('cursor', 'belongs to a list in another order: start again without it');
    if (this.#by === 'name' && typeof key === 'string' && !key.includes('\0')) return { key, id };
    if (this.#by === 'expires' && key === null) return { key: 'infinity', id };
    if (this.#by !== 'name' && typeof key === 'number' && Number.isSafeInteger(key) && key >= 0 && key < 1e15) {
      return { key: new Date(key), id };
    }
    throw invalidCursor();
  }
}

function parsed(cursor: string): unknown[] {
  try {
    const value: unknown = JSON.parse(Buffer.from(cursor, 'base64url').toString());
    return Array.isArray(value) ? value : [];
  } catch (error) {
    if (error instanceof SyntaxError) return [];
    throw error;
  }
}
