import { isId } from '@latchkey/contracts';
import { type ApiError, badField } from './http.errors.js';

/** One page of a list, newest first. */
export interface Page<T> {
  items: T[];
  nextCursor: string | null;
}

/** A position in a list ordered by time and id. */
export interface Position {
  createdAt: Date;
  id: string;
}

export const writeCursor = ({ createdAt, id }: Position): string =>
  Buffer.from(`${createdAt.getTime()} ${id}`).toString('base64url');

export const invalidCursor = (): ApiError => badField('cursor', 'is not a cursor from this API');

/** @throws ApiError `invalid_request`, field `cursor`, when `writeCursor` did not make it */
export function readCursor(cursor: string): Position {
  const [, at, id = ''] = /^(\d{1,15}) (.*)$/.exec(Buffer.from(cursor, 'base64url').toString()) ?? [];
  if (at === undefined || !isId(id)) throw invalidCursor();
  return { createdAt: new Date(Number(at)), id };
}

/**
 * Reads one page by keyset, so that it costs the same at any depth and neither repeats nor misses a row: times are
 * stored in milliseconds, and the id breaks ties.
 * @param conditions SQL conditions on the list, with their values
 * @param read runs the statement; `where` includes the word WHERE when there are conditions
 */
export async function keysetPage<T extends { id: string; createdAt: string }>(
  query: { limit: number; cursor?: string | undefined },
  conditions: { where: string[]; values: unknown[] },
  read: (sql: { where: string; values: unknown[]; tail: string }) => Promise<T[]>,
): Promise<Page<T>> {
  const where = [...conditions.where];
  const values = [...conditions.values];
  if (query.cursor !== undefined) {
    const { createdAt, id } = readCursor(query.cursor);
    values.push(createdAt, id);
    where.push(`(created_at, id) < ($${values.length - 1}, $${values.length})`);
  }
  values.push(query.limit + 1);
  const found = await read({
    where: where.length ? `WHERE ${where.join(' AND ')}` : '',
    values,
    tail: `ORDER BY created_at DESC, id DESC LIMIT $${values.length}`,
  });
  return pageOf(found, query.limit, ({ id, createdAt }) => writeCursor({ createdAt: new Date(createdAt), id }));
}

/** One page from up to `limit` + 1 rows. @param cursorAt the cursor after which the next page begins */
export function pageOf<T>(found: readonly T[], limit: number, cursorAt: (last: T) => string): Page<T> {
  const items = found.slice(0, limit);
  const last = items.at(-1);
  return { items, nextCursor: found.length > limit && last ? cursorAt(last) : null };
}
