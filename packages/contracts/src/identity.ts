import { createHmac } from 'node:crypto';
import { isOneOfSecrets } from './message.js';

/** Headers that identify the caller to an upstream. The same names from outside are dropped in every spelling. */
export const IDENTITY_HEADERS = {
  tokenId: 'x-latchkey-token-id',
  owner: 'x-latchkey-owner',
  project: 'x-latchkey-project',
  scopes: 'x-latchkey-scopes',
} as const;
export const REQUEST_ID_HEADER = 'x-request-id';

/** Whether a request id from outside is used; otherwise a new one is made. */
export const isRequestId = (text: string): boolean => /^[A-Za-z0-9._:-]{1,100}$/.test(text);

/** The caller's address as determined by the gateway, for the token-service; used only with a valid GATEWAY_PROOF_HEADER. */
export const CALLER_ADDRESS_HEADER = 'x-latchkey-caller-address';

/**
 * With this header the gateway proves to the token-service that a request came through it, so that the caller's address
 * and X-Request-Id are used. Its value is derived from GATEWAY_PROOF_SECRET, which has no other use.
 */
export const GATEWAY_PROOF_HEADER = 'x-latchkey-door';

export function gatewayProof(secret: string): string {
  return createHmac('sha256', secret).update('door').digest('base64url');
}

/** Recognises a proof derived from one of these secrets, in constant time. */
export function gatewayProofMatcher(secrets: readonly string[]): (presented: string) => boolean {
  const known = secrets.map(gatewayProof);
  return (presented) => isOneOfSecrets(known, presented);
}

/** Cookie of a signed-in person; over https it is `__Host-` and Secure. */
export const SESSION_COOKIE = 'latchkey_session';
export const SECURE_SESSION_COOKIE = '__Host-latchkey_session';
