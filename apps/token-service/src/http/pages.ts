import type { Refusal } from './http.errors.js';
import { badField } from './http.errors.js';

/** One page of a list, newest first. */
export interface Page<T> {
  items: T[];
  nextCursor: string | null;
}

/** A place in a list ordered by time and id, newest first. */
export interface Position {
  createdAt: Date;
  id: string;
}

export const writeCursor = ({ createdAt, id }: { createdAt: string; id: string }): string =>
  Buffer.from(`${Date.parse(createdAt)} ${id}`).toString('base64url');

/** @throws Refusal naming `cursor` when it is not one of ours */
export function readCursor(cursor: string): Position {
  const match = /^(\d{1,15}) ([0-9a-f]{8}-[0-9a-f-]{27})$/.exec(Buffer.from(cursor, 'base64url').toString());
  if (!match) throw badField('cursor', 'is not a cursor of ours') satisfies Refusal;
  return { createdAt: new Date(Number(match[1])), id: match[2]! };
}

/**
 * Reads one page by keyset, so that it costs the same at any depth and neither repeats nor misses a row: times are
 * stored in milliseconds, and the id breaks ties.
 * @param conditions SQL that narrows the list, with its values
 * @param read runs the statement; `where` includes the word WHERE when there is something to say
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
  return pageOf(found, query.limit);
}

/** The page out of one row more than it takes. */
function pageOf<T extends { id: string; createdAt: string }>(found: T[], limit: number): Page<T> {
  const items = found.slice(0, limit);
  const last = items.at(-1);
  return { items, nextCursor: found.length > limit && last ? writeCursor(last) : null };
}
