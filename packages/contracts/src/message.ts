import { createHmac, timingSafeEqual } from 'node:crypto';
import type { z } from 'zod';

/** HMAC-SHA-256 of a text for one purpose: what is made for one purpose proves nothing for another. */
export function mac(key: Uint8Array, purpose: string, text: string): string {
  return createHmac('sha256', key).update(`${purpose}\n${text}`).digest('base64url');
}

/** Whether two texts are the same, in a time that tells no more than the length of what was expected. */
export function secretEquals(expected: string, presented: string): boolean {
  const a = Buffer.from(expected);
  const b = Buffer.from(presented);
  return a.length === b.length && timingSafeEqual(a, b);
}

/** Whether a text is one of some secrets; every one is compared, as `secretEquals` does. */
export const isOneOfSecrets = (secrets: readonly string[], presented: string): boolean =>
  secrets.reduce((found, secret) => secretEquals(secret, presented) || found, false);

/** Reads JSON of a schema; undefined when it is none, so that the caller can drop and count it. */
export function parseJson<T>(schema: z.ZodType<T>, text: string): T | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const result = schema.safeParse(value);
  return result.success ? result.data : undefined;
}
