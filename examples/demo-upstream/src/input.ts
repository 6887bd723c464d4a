import type { FieldError } from './http.js';
import { isProjectId, LIMITS } from './store.js';

/** Either the value, or what is wrong with which field. */
export type Read<T> = { ok: true; value: T } | { ok: false; errors: FieldError[] };

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function unknownFields(input: Record<string, unknown>, known: string[]): FieldError[] {
  return Object.keys(input)
    .filter((field) => !known.includes(field))
    .slice(0, 10)
    .map((field) => ({ field: field.slice(0, 100), message: `is not known; known are ${known.join(', ')}` }));
}

function text(input: Record<string, unknown>, field: string, min: number, max: number, errors: FieldError[]): string {
  const value = input[field];
  if (typeof value === 'string' && value.length >= min && value.length <= max) return value;
  errors.push({ field, message: `must be text of ${min} to ${max} characters` });
  return '';
}

/** A document's content: `title` (1 to 200 characters) and `body` (up to 16 384; empty when absent). */
export function readDocumentContent(input: unknown, alsoKnown: string[] = []): Read<{ title: string; body: string }> {
  if (!isObject(input)) return { ok: false, errors: [{ field: '', message: 'must be a JSON object' }] };
  const errors = unknownFields(input, ['title', 'body', ...alsoKnown]);
  const title = text(input, 'title', 1, LIMITS.titleCharactersMax, errors);
  const body = input['body'] === undefined ? '' : text(input, 'body', 0, LIMITS.bodyCharactersMax, errors);
  return errors.length > 0 ? { ok: false, errors } : { ok: true, value: { title, body } };
}

/** A project id, in lower case. */
export function readProjectId(value: unknown): Read<string> {
  if (typeof value === 'string' && isProjectId(value)) return { ok: true, value: value.toLowerCase() };
  return { ok: false, errors: [{ field: 'project', message: 'must be a UUID' }] };
}

/** A whole number within bounds, or `standard` when absent. Text of digits counts, as in a query string. */
export function readWhole(
  value: unknown,
  field: string,
  bounds: { min: number; max: number; standard: number },
): Read<number> {
  if (value === undefined || value === null) return { ok: true, value: bounds.standard };
  const number = typeof value === 'string' && /^\d{1,9}$/.test(value) ? Number(value) : value;
  if (typeof number === 'number' && Number.isInteger(number) && number >= bounds.min && number <= bounds.max) {
    return { ok: true, value: number };
  }
  return { ok: false, errors: [{ field, message: `must be a whole number from ${bounds.min} to ${bounds.max}` }] };
}
