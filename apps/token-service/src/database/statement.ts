import type { QueryResultRow } from 'pg';

/** What follows a write once it has been committed. */
export interface AfterCommit {
  /** A read sent directly behind the commit, on the same connection: it comes from the server that committed. */
  readonly statement?: Statement;
  /** Called before the change resolves, with the rows of the write and of the read. */
  readonly take: (written: QueryResultRow[], read: QueryResultRow[]) => void;
}

/** A statement with its values, and what follows once it has been committed. */
export type Statement = readonly [text: string, values?: unknown[], after?: AfterCommit];

/** Two writes as one statement, if neither reads what the other writes: each statement has a cost in PostgreSQL. */
export function together([first, firstValues = []]: Statement, [second, secondValues = []]: Statement): Statement {
  const renumbered = second.replace(/\$(\d+)/g, (_, n: string) => `$${Number(n) + firstValues.length}`);
  return [`WITH first AS (${first}) ${renumbered}`, [...firstValues, ...secondValues]];
}
