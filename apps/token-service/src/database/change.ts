import type { QueryResultRow } from 'pg';
import { mustBeUnwarned } from './authority.js';
import type { PreparedClient } from './prepared-client.js';
import type { AfterCommit, Statement } from './statement.js';

const BEGIN: Statement = ['BEGIN ISOLATION LEVEL READ COMMITTED'];
/** Everything as of one moment; read-only. */
export const BEGIN_SNAPSHOT: Statement = ['BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY'];
const COMMIT: Statement = ['COMMIT'];

/** Locks and reads can be sent together with BEGIN; if that fails, they have changed nothing. */
const isReading = ([text]: Statement) => /^\s*SELECT\b/i.test(text);

/**
 * One transaction (READ COMMITTED unless begun otherwise). Reads wait for their rows; writes are queued, and sent in order
 * with the next read or with the commit. Statements sent together cost one round trip: a change that reads once and then
 * writes takes two, one for BEGIN with the reads, one for the writes with COMMIT.
 *
 * Each statement sees the effects and locks of those before it. When PostgreSQL rejects one, the change is rolled back.
 */
export class Change {
  readonly #connection: PreparedClient;
  readonly #beginning: Statement;
  readonly #queue: Statement[] = [];
  /** Statements that have run and have something to do after the commit, with their rows. */
  readonly #committing: { after: AfterCommit; written: QueryResultRow[] }[] = [];
  #isBegun = false;

  /** @param connection used by this change only until it ends */
  constructor(connection: PreparedClient, beginning: Statement = BEGIN) {
    this.#connection = connection;
    this.#beginning = beginning;
  }

  /**
   * Runs a statement, after those that are queued.
   * @returns its rows
   * @throws PostgreSQL's error of the first statement that failed; those behind it have not run
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

  /** Queues statements whose rows the change does not need; see `AfterCommit` for what follows the commit. */
  write(...statements: readonly Statement[]): void {
    this.#queue.push(...statements);
  }

  /**
   * Commits, and runs the reads of `AfterCommit` behind it.
   * @throws AuthorityLost when PostgreSQL warned: the commit may not have reached the standby
   */
  async commit(): Promise<void> {
    if (!this.#isBegun && this.#queue.length === 0) return;
    await this.#begin();
    const { warnings } = this.#connection;
    const writes = this.#queue.splice(0);
    const afters = [...this.#committing.map(({ after }) => after), ...writes.flatMap(([, , after]) => after ?? [])];
    const behind = afters.flatMap(({ statement }) => (statement ? [statement] : []));
    // After a write that failed, PostgreSQL treats COMMIT as ROLLBACK.
    const rows = await this.#send([...writes, COMMIT, ...behind]);
    mustBeUnwarned(this.#connection, warnings);
    let at = writes.length + 1;
    for (const { after, written } of this.#committing) after.take(written, after.statement ? rows[at++]! : []);
  }

  /** A connection on which even ROLLBACK fails is closed, so that it is not reused. */
  async rollBack(): Promise<void> {
    if (this.#isBegun) await this.#connection.query('ROLLBACK').catch(() => this.#connection.end());
  }

  /** Awaited before anything is written, so that nothing is ever written outside the transaction. */
  async #begin(): Promise<void> {
    if (this.#isBegun) return;
    this.#isBegun = true;
    await this.#send([this.#beginning]);
  }

  /** In one packet: for statements as small as these, the system calls cost more than the rest. */
  async #send(statements: readonly Statement[]): Promise<QueryResultRow[][]> {
    const { stream } = this.#connection.connection;
    stream.cork();
    const results = statements.map(
      ([text, values]): Promise<{ rows: QueryResultRow[] }> => this.#connection.query(text, values),
    );
    stream.uncork();
    const found = (await Promise.all(results)).map(({ rows }) => rows);
    statements.forEach(([, , after], i) => {
      if (after) this.#committing.push({ after, written: found[i]! });
    });
    return found;
  }
}
