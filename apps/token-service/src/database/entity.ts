import { type ColumnOptions, getMetadataArgsStorage } from 'typeorm';
import type { Statement } from './statement.js';

type Entity<Row> = new () => Row;

interface Columns {
  readonly table: string;
  /** By the names of the entity's properties. */
  readonly byProperty: ReadonlyMap<
    string,
    { readonly name: string; readonly type: string; readonly selected: boolean }
  >;
}

const known = new Map<unknown, Columns>();

/** A table and its columns, from the entity's decorators: the only list of them. */
function columnsOf<Row>(entity: Entity<Row>): Columns {
  const found = known.get(entity);
  if (found) return found;
  const { tables, columns } = getMetadataArgsStorage();
  const table = tables.find(({ target }) => target === entity)?.name;
  if (!table) throw new Error(`${entity.name} is not an entity with a named table`);
  const byProperty = new Map(
    columns
      .filter(({ target }) => target === entity)
      .map(({ propertyName, options }) => {
        const { name = propertyName, select } = options;
        return [propertyName, { name, type: typeOf(options), selected: select !== false }];
      }),
  );
  known.set(entity, { table, byProperty });
  return { table, byProperty };
}

const typeOf = ({ type, array }: ColumnOptions) => `${String(type)}${array ? '[]' : ''}`;

/**
 * The columns of an entity, under the names of its properties; without those with `select: false`.
 * @param alias of its table
 * @param computed SQL in place of a column, by property
 */
export function columnsAs<Row extends object>(
  entity: Entity<Row>,
  alias: string,
  computed: Partial<Record<keyof Row & string, string>> = {},
): string {
  return [...columnsOf(entity).byProperty]
    .flatMap(([property, { name, selected }]) =>
      selected ? [`${computed[property as keyof Row & string] ?? `${alias}.${name}`} AS "${property}"`] : [],
    )
    .join(', ');
}

/** The rows that match every field of `where`, as the entity, with the columns of `columnsAs`. */
export function select<Row extends object>(
  entity: Entity<Row>,
  where: Partial<Row>,
  computed?: Partial<Record<keyof Row & string, string>>,
): Statement {
  const { table } = columnsOf(entity);
  const columns = columnsAs(entity, table, computed);
  return [`SELECT ${columns} FROM ${table} WHERE ${equals(entity, where, 0)}`, Object.values(where)];
}

/** Inserts one row; missing columns get PostgreSQL's defaults. */
export function insertInto<Row extends object>(entity: Entity<Row>, row: Partial<Row>): Statement {
  const names = namesOf(entity, row);
  const placeholders = names.map((_, i) => `$${i + 1}`);
  const { table } = columnsOf(entity);
  return [`INSERT INTO ${table} (${names.join(', ')}) VALUES (${placeholders.join(', ')})`, Object.values(row)];
}

/**
 * Inserts any number of rows in one statement. All have the same columns.
 * @param rows at least one
 */
export function insertAllInto<Row extends object>(entity: Entity<Row>, rows: readonly Partial<Row>[]): Statement {
  const { table, byProperty } = columnsOf(entity);
  const properties = Object.keys(rows[0]!);
  const columns = properties.map((property) => byProperty.get(property)!);
  const names = columns.map(({ name }) => name).join(', ');
  const typed = columns.map(({ type }, i) => `"${properties[i]}" ${type}`).join(', ');
  const quoted = properties.map((property) => `"${property}"`).join(', ');
  return [
    `INSERT INTO ${table} (${names}) SELECT ${quoted} FROM jsonb_to_recordset($1::jsonb) AS r(${typed})`,
    [JSON.stringify(rows, bytesAsHex)],
  ];
}

/** Updates the rows that match every field of `where`. */
export function update<Row extends object>(entity: Entity<Row>, where: Partial<Row>, changes: Partial<Row>): Statement {
  const { table } = columnsOf(entity);
  const sets = namesOf(entity, changes).map((name, i) => `${name} = $${i + 1}`);
  const values = Object.values(changes);
  return [
    `UPDATE ${table} SET ${sets.join(', ')} WHERE ${equals(entity, where, values.length)}`,
    [...values, ...Object.values(where)],
  ];
}

/** Deletes the rows that match every field of `where`. */
export function deleteFrom<Row extends object>(entity: Entity<Row>, where: Partial<Row>): Statement {
  return [`DELETE FROM ${columnsOf(entity).table} WHERE ${equals(entity, where, 0)}`, Object.values(where)];
}

function equals<Row extends object>(entity: Entity<Row>, where: Partial<Row>, offset: number): string {
  return namesOf(entity, where)
    .map((name, i) => `${name} = $${offset + i + 1}`)
    .join(' AND ');
}

function namesOf<Row extends object>(entity: Entity<Row>, values: Partial<Row>): string[] {
  const { byProperty } = columnsOf(entity);
  return Object.keys(values).map((property) => {
    const column = byProperty.get(property);
    if (!column) throw new Error(`${entity.name} has no column ${property}`);
    return column.name;
  });
}

/** As PostgreSQL reads a `bytea`. `this` holds the value before `toJSON`. */
function bytesAsHex(this: Record<string, unknown>, key: string, value: unknown): unknown {
  const bytes = this[key];
  return Buffer.isBuffer(bytes) ? `\\x${bytes.toString('hex')}` : value;
}
