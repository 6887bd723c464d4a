import { createHmac, timingSafeEqual } from 'node:crypto';
import type { z } from 'zod';

/** HMAC-SHA-256 of a text for one purpose: a MAC for one purpose is invalid for another. */
export function mac(key: Uint8Array, purpose: string, text: string): string {
  return createHmac('sha256', key).update(`${purpose}\n${text}`).digest('base64url');
}

/** Whether two texts are equal, in constant time: only the length of the expected text can leak. */
export function secretEquals(expected: string, presented: string): boolean {
  const a = Buffer.from(expected);
  const b = Buffer.from(presented);
  return a.length === b.length && timingSafeEqual(a, b);
}

/** Whether a text is one of several secrets; all are compared, each as in `secretEquals`. */
export const isOneOfSecrets = (secrets: readonly string[], presented: string): boolean =>
  secrets.reduce((found, secret) => secretEquals(secret, presented) || found, false);

/** Parses JSON by a schema; undefined when invalid, so that the caller can drop and count it. */
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
