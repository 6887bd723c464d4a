import type { QueryResultRow } from 'pg';

/** What is done with a write once it has been committed. */
export interface AfterCommit {
  /** A reading that goes out right behind the commit, on the same connection: it comes from the server that committed. */
  readonly statement?: Statement;
  /** Called before the change's result is answered, with the rows of the write and of the reading. */
  readonly take: (written: QueryResultRow[], read: QueryResultRow[]) => void;
}

/** A statement with its values, and what follows once it has been committed. */
export type Statement = readonly [text: string, values?: unknown[], after?: AfterCommit];

/** Two writes as one statement, where neither looks at what the other does: each statement costs PostgreSQL an answer. */
export function together([first, firstValues = []]: Statement, [then, thenValues = []]: Statement): Statement {
  const renumbered = then.replace(/\$(\d+)/g, (_, n: string) => `$${Number(n) + firstValues.length}`);
  return [`WITH first AS (${first}) ${renumbered}`, [...firstValues, ...thenValues]];
}
