import { createHmac, timingSafeEqual } from 'node:crypto';

/** Headers that tell an upstream who calls. The same names from outside are dropped in every spelling. */
export const IDENTITY_HEADERS = {
  tokenId: 'x-latchkey-token-id',
  owner: 'x-latchkey-owner',
  project: 'x-latchkey-project',
  scopes: 'x-latchkey-scopes',
} as const;
export const REQUEST_ID_HEADER = 'x-request-id';

/** The caller's address as the gateway worked it out, for the token-service; believed only beside a right DOOR_HEADER. */
export const CALLER_ADDRESS_HEADER = 'x-latchkey-caller-address';

/**
 * By this header the gateway shows the token-service that a request came through it, so that the caller's address and
 * X-Request-Id beside it are believed. Its value is derived from RPC_SECRET.
 */
export const DOOR_HEADER = 'x-latchkey-door';

export function doorValue(rpcSecret: string): string {
  return createHmac('sha256', rpcSecret).update('door').digest('base64url');
}

export function isDoorValue(rpcSecret: string, presented: string): boolean {
  const a = Buffer.from(doorValue(rpcSecret));
  const b = Buffer.from(presented);
  return a.length === b.length && timingSafeEqual(a, b);
}

/** Cookie of a signed-in person; over https it is `__Host-` and Secure. */
export const SESSION_COOKIE = 'latchkey_session';
export const SECURE_SESSION_COOKIE = '__Host-latchkey_session';
