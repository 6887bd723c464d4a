import { newId } from '@latchkey/runtime';
import type { Moment } from '@latchkey/verifier';
import { Client, type ClientConfig } from 'pg';

/** Most prepared statements of one connection; further texts are sent unprepared. */
const STATEMENTS_MAX = 300;
const names = new Map<string, string>();

/** A commit that proved a server to be the primary. */
export interface Proof {
  readonly begun: Moment;
  readonly system: string;
  readonly timeline: string;
  /** The history of the database; empty: not recorded yet. */
  readonly history: string;
  /** Of the log's table: another one after a restore into this database. */
  readonly file: string;
  readonly windowMs: number;
}

/**
 * A connection that prepares each statement given as a text with values, so that PostgreSQL parses and plans it once per
 * connection and not each time, which would cost more than running it. A statement given as an object (`{ text, values }`)
 * is not prepared: for dynamically built SQL.
 */
export class PreparedClient extends Client {
  readonly id = newId();
  /** Of the server process, as received when the connection was opened. */
  declare readonly processID: number;
  /** The last commit that proved its server to be the primary: when it was begun, and for how long it counts. */
  proof?: Proof;
  /** Number of notices and warnings from the server. */
  warnings = 0;

  constructor(config?: string | ClientConfig) {
    super(config);
    this.on('notice', () => this.warnings++);
    // PostgreSQL can close a connection that is checked out and idle, and an 'error' event without a listener ends the
    // process. The next query fails with that error, and the pool does not take the connection back.
    this.on('error', () => undefined);
  }

  // biome-ignore lint/suspicious/noExplicitAny: the overloads of pg's own query, passed through
  override query(query: any, values?: any, ...rest: any[]): any {
    const name = typeof query === 'string' && Array.isArray(values) ? nameOf(query) : undefined;
    const prepared = name === undefined ? query : { name, text: query };
    return (super.query as (...args: unknown[]) => unknown)(prepared, values, ...rest);
  }
}

function nameOf(text: string): string | undefined {
  let name = names.get(text);
  if (name === undefined && names.size < STATEMENTS_MAX) {
    name = `s${names.size}`;
    names.set(text, name);
  }
  return name;
}
