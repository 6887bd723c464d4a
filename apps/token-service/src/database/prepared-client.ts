import { newId } from '@latchkey/runtime';
import type { Moment } from '@latchkey/verifier';
import { Client, type ClientConfig } from 'pg';

/** Most statements that are kept prepared on one connection; a text beyond them is sent as it is. */
const STATEMENTS_MAX = 300;
const names = new Map<string, string>();

/**
 * A connection that prepares each statement that comes as a text with values, so that PostgreSQL parses and plans it
 * once for each connection and not each time: for the service's queries that costs more than running them. What comes
 * as an object (`{ text, values }`) is not prepared: texts put together for one question belong there.
 */
export class PreparedClient extends Client {
  readonly id = newId();
  /** Of the server process that answers, as it said when the connection was made. */
  declare readonly processID: number;
  /** By which commit of its own, begun when, its server has shown that it is the primary, and for how long that counts. */
  proof?: { begun: Moment; system: string; timeline: string; windowMs: number };
  /** How often the server has warned. */
  warnings = 0;

  constructor(config?: string | ClientConfig) {
    super(config);
    this.on('notice', () => this.warnings++);
    // PostgreSQL may end a connection that is lent and asks nothing, and an error that nobody hears ends the process. The
    // next question is answered with it, and the pool takes such a connection back no more.
    this.on('error', () => undefined);
  }

  // biome-ignore lint/suspicious/noExplicitAny: the overloads of pg's own query, passed on
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
