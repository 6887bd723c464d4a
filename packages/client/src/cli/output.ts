import type { Writable } from 'node:stream';

/** Where a command writes: results to `out`, messages to `err`. */
export interface Output {
  out: Writable;
  err: Writable;
  /** Results as JSON for programs, instead of tables for people. */
  json: boolean;
}

/** One result: as JSON, or as `name  value` lines. */
export function show(output: Output, record: object, fields: [string, unknown][]): void {
  if (output.json) printJson(output, record);
  else {
    const width = Math.max(...fields.map(([name]) => name.length));
    for (const [name, value] of fields) output.out.write(`${name.padEnd(width)}  ${cell(value)}\n`);
  }
}

/** A list: as one JSON array, or as a table with a header. */
export function list<T>(output: Output, items: readonly T[], columns: [string, (item: T) => unknown][]): void {
  if (output.json) {
    printJson(output, items);
    return;
  }
  const rows = items.map((item) => columns.map(([, value]) => cell(value(item))));
  const widths = columns.map(([head], at) => Math.max(head.length, ...rows.map((row) => row[at]?.length ?? 0)));
  const line = (cells: string[]) =>
    cells
      .map((text, at) => text.padEnd(widths[at] ?? 0))
      .join('  ')
      .trimEnd();
  for (const row of [columns.map(([head]) => head), ...rows]) output.out.write(`${line(row)}\n`);
}

export function printJson(output: Output, value: unknown): void {
  output.out.write(`${JSON.stringify(value, null, 2)}\n`);
}

/** A message to the person at the terminal; never part of the result. */
export function say(output: Output, text: string): void {
  output.err.write(`${text}\n`);
}

/** A value as one line without terminal control characters. */
function cell(value: unknown): string {
  if (value === null || value === undefined || value === '') return '-';
  if (Array.isArray(value)) return value.length ? value.map(cell).join(' ') : '-';
  // biome-ignore lint/suspicious/noControlCharactersInRegex: replaces control characters
  return String(value).replace(/[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g, '?');
}
