import { createHmac } from 'node:crypto';
import { isOneOfSecrets } from './message.js';

/** Headers that tell an upstream who calls. The same names from outside are dropped in every spelling. */
export const IDENTITY_HEADERS = {
  tokenId: 'x-latchkey-token-id',
  owner: 'x-latchkey-owner',
  project: 'x-latchkey-project',
  scopes: 'x-latchkey-scopes',
} as const;
export const REQUEST_ID_HEADER = 'x-request-id';

/** Whether a request id from outside is taken as it is; another one is made for it otherwise. */
export const isRequestId = (text: string): boolean => /^[A-Za-z0-9._:-]{1,100}$/.test(text);

/** The caller's address as the gateway worked it out, for the token-service; believed only beside a right GATEWAY_PROOF_HEADER. */
export const CALLER_ADDRESS_HEADER = 'x-latchkey-caller-address';

/**
 * By this header the gateway shows the token-service that a request came through it, so that the caller's address and
 * X-Request-Id beside it are believed. Its value is derived from GATEWAY_PROOF_SECRET, which opens nothing else.
 */
export const GATEWAY_PROOF_HEADER = 'x-latchkey-door';

export function gatewayProof(secret: string): string {
  return createHmac('sha256', secret).update('door').digest('base64url');
}

/** Tells a proof made with one of these secrets, in constant time. */
export function gatewayProofMatcher(secrets: readonly string[]): (presented: string) => boolean {
  const known = secrets.map(gatewayProof);
  return (presented) => isOneOfSecrets(known, presented);
}

/** Cookie of a signed-in person; over https it is `__Host-` and Secure. */
export const SESSION_COOKIE = 'latchkey_session';
export const SECURE_SESSION_COOKIE = '__Host-latchkey_session';
