import { LIMITS } from '@latchkey/contracts';
import type { z } from 'zod';
import { ApiError, badField } from './http.errors.js';

/**
 * Parses input.
 * @throws ApiError `invalid_request` that names every invalid field, unknown ones included
 */
export function parseWith<S extends z.ZodType>(
  schema: S,
  value: unknown,
  what: 'body' | 'query' | 'path',
): z.output<S> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const errors = result.error.issues.slice(0, 50).flatMap((issue) => {
    const path = issue.path.map(String).join('.');
    if (issue.code === 'unrecognized_keys')
      return issue.keys.slice(0, 50).map((key) => ({
        field: shortened([path, key].filter(Boolean).join('.')),
        message: 'is not a field of this request',
      }));
    return [{ field: shortened(path || what), message: issue.message }];
  });
  const first = errors[0]!;
  throw new ApiError('invalid_request', `${first.field}: ${first.message}`, { errors });
}

const shortened = (name: string) => (name.length > 100 ? `${name.slice(0, 100)}…` : name);

/** The `Idempotency-Key` header: visible ASCII, at most 255 characters. Absent: undefined. @throws ApiError `invalid_request` */
export function checkIdempotencyKey(value: string | string[] | undefined): string | undefined {
  if (value === undefined) return undefined;
  if (typeof value !== 'string' || !/^[\x21-\x7e]+$/.test(value) || value.length > LIMITS.idempotencyKeyLengthMax)
    throw badField('Idempotency-Key', `must be 1 to ${LIMITS.idempotencyKeyLengthMax} visible ASCII characters`);
  return value;
}

/**
 * `wait` of the `Prefer` header (RFC 7240 section 4.3) in milliseconds. A malformed one counts as absent, as the RFC
 * requires.
 */
export function preferredWaitMs(value: string | string[] | undefined): number | undefined {
  const text = Array.isArray(value) ? value.join(',') : value;
  const match = /(?:^|[,;])\s*wait\s*=\s*"?(\d{1,6})"?\s*(?:$|[,;])/i.exec(text ?? '');
  return match ? Number(match[1]) * 1000 : undefined;
}
