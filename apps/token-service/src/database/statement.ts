import type { QueryResultRow } from 'pg';

/** What is done with a write once it has been committed. */
export interface AfterCommit {
  /** A reading that goes out right behind the commit, on the same connection: it comes from the server that committed. */
  readonly statement?: Statement;
  /** Called before the transaction's result is made, with the rows of the write and of the reading. */
  readonly take: (written: QueryResultRow[], read: QueryResultRow[]) => void;
}

/** A statement with its values, and what follows once it has been committed. */
export type Statement = readonly [text: string, values?: unknown[], after?: AfterCommit];
