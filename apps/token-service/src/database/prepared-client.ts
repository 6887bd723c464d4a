import { Client } from 'pg';

/** Most statements that are kept prepared on one connection; a text beyond them is sent as it is. */
const STATEMENTS_MAX = 300;
const names = new Map<string, string>();

/**
 * A connection that prepares each statement that comes as a text with values, so that PostgreSQL parses and plans it
 * once for each connection and not each time: for the service's queries that costs more than running them. What comes
 * as an object (`{ text, values }`) is not prepared: texts put together for one question belong there.
 */
export class PreparedClient extends Client {
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
