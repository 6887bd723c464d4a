import type { QueryResultRow } from 'pg';
import { mustBeUnwarned } from './authority.js';
import type { PreparedClient } from './prepared-client.js';
import type { AfterCommit, Statement } from './statement.js';

const BEGIN: Statement = ['BEGIN ISOLATION LEVEL READ COMMITTED'];
/** Everything as of one moment, and nothing written. */
export const BEGIN_SNAPSHOT: Statement = ['BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY'];
const COMMIT: Statement = ['COMMIT'];

/** Locks and readings may go out together with BEGIN; should that fail, they have changed nothing. */
const isReading = ([text]: Statement) => /^\s*SELECT\b/i.test(text);

/**
 * One transaction (READ COMMITTED unless begun otherwise). Reads wait for their rows; writes are queued, and go out in order with the next read or
 * with the commit. Statements that go out together cost one wait: a change that reads once and then writes takes three,
 * for the beginning with the reads, the writes with the commit, and nothing else.
 *
 * Each statement sees what those before it did, locked and waited for. When PostgreSQL refuses one, nothing of the change is
 * kept.
 */
export class Change {
  readonly #connection: PreparedClient;
  readonly #beginning: Statement;
  readonly #queue: Statement[] = [];
  /** Statements that have run and are to be told of the commit, with their rows. */
  readonly #committing: { after: AfterCommit; written: QueryResultRow[] }[] = [];
  #isBegun = false;

  /** @param connection lent to this change alone until it ends */
  constructor(connection: PreparedClient, beginning: Statement = BEGIN) {
    this.#connection = connection;
    this.#beginning = beginning;
  }

  /**
   * Runs a statement, and what is queued ahead of it.
   * @returns its rows
   * @throws what PostgreSQL answered the first statement with that failed; those behind it have done nothing
   */
  async read<Row extends QueryResultRow>(statement: Statement): Promise<Row[]> {
    const [rows] = await this.readAll([statement]);
    return rows as Row[];
  }

  /** Runs several in one packet, in order. @returns the rows of each @throws as `read` does */
  async readAll(statements: readonly Statement[]): Promise<QueryResultRow[][]> {
    if (statements.length === 0) return [];
    if (!this.#isBegun && this.#queue.length === 0 && statements.every(isReading)) {
      this.#isBegun = true;
      const [, ...rows] = await this.#send([this.#beginning, ...statements]);
      return rows;
    }
    await this.#begin();
    const queued = this.#queue.splice(0);
    const rows = await this.#send([...queued, ...statements]);
    return rows.slice(queued.length);
  }

  /** Queues a statement of whose rows the change makes nothing; see `AfterCommit` for what follows the commit. */
  write(...statements: readonly Statement[]): void {
    this.#queue.push(...statements);
  }

  /**
   * Commits, and reads behind that what statements asked to be read then.
   * @throws AuthorityLost when PostgreSQL warned: the commit may not have reached the stand-by
   */
  async commit(): Promise<void> {
    if (!this.#isBegun && this.#queue.length === 0) return;
    await this.#begin();
    const { warnings } = this.#connection;
    const writes = this.#queue.splice(0);
    const afters = [...this.#committing.map(({ after }) => after), ...writes.flatMap(([, , after]) => after ?? [])];
    const behind = afters.flatMap(({ statement }) => (statement ? [statement] : []));
    // After a write that failed, PostgreSQL takes the commit for a rollback.
    const rows = await this.#send([...writes, COMMIT, ...behind]);
    mustBeUnwarned(this.#connection, warnings);
    let at = writes.length + 1;
    for (const { after, written } of this.#committing) after.take(written, after.statement ? rows[at++]! : []);
  }

  /** A connection that cannot even roll back is ended, so that nobody uses it again. */
  async rollBack(): Promise<void> {
    if (this.#isBegun) await this.#connection.query('ROLLBACK').catch(() => this.#connection.end());
  }

  /** Answered before anything is written, so that nothing is ever written outside the transaction. */
  async #begin(): Promise<void> {
    if (this.#isBegun) return;
    this.#isBegun = true;
    await this.#send([this.#beginning]);
  }

  /** In one packet: for statements as small as these, the system calls cost more than the rest. */
  async #send(statements: readonly Statement[]): Promise<QueryResultRow[][]> {
    const { stream } = this.#connection.connection;
    stream.cork();
    const answers = statements.map(
      ([text, values]): Promise<{ rows: QueryResultRow[] }> => this.#connection.query(text, values),
    );
    stream.uncork();
    const found = (await Promise.all(answers)).map(({ rows }) => rows);
    statements.forEach(([, , after], i) => {
      if (after) this.#committing.push({ after, written: found[i]! });
    });
    return found;
  }
}
