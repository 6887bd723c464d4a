import { IDENTITY_HEADERS, REQUEST_ID_HEADER } from '@latchkey/contracts';
import type { Principal } from '@latchkey/verifier';
import type { RequestHead } from './request-head.js';
import { withoutSessionCookie } from './request-head.js';

/** Appends the identity headers. Alternating names and values. */
export function pushIdentity(headers: string[], principal: Principal): void {
  const { tokenId, ownerType, ownerId, project, scopes } = principal;
  headers.push(IDENTITY_HEADERS.tokenId, tokenId, IDENTITY_HEADERS.owner, `${ownerType}:${ownerId}`);
  if (project !== '') headers.push(IDENTITY_HEADERS.project, project);
  headers.push(IDENTITY_HEADERS.scopes, scopes.length === 1 ? scopes[0]! : scopes.join(' '));
}

/** Which of the caller's credentials a forwarded request keeps. */
export interface Credentials {
  readonly authorization: boolean;
  /** The console's session cookie. */
  readonly session: boolean;
}

/**
 * A request's headers for the upstream: those that passed, then the gateway's. Appends to `head.passed` and returns
 * it, so call it once.
 */
export function forwardedHeaders(head: RequestHead, credentials: Credentials, prefix: string): string[] {
  const headers = head.passed;
  if (credentials.authorization && head.authorization !== undefined) headers.push('authorization', head.authorization);
  if (head.cookie !== undefined) {
    const cookie = credentials.session ? head.cookie : withoutSessionCookie(head.cookie);
    if (cookie !== undefined) headers.push('cookie', cookie);
  }
  headers.push(
    REQUEST_ID_HEADER,
    head.requestId,
    'x-forwarded-for',
    head.forwardedFor,
    'x-forwarded-proto',
    head.forwardedProto,
  );
  if (head.forwardedHost !== '') headers.push('x-forwarded-host', head.forwardedHost);
  if (prefix !== '') headers.push('x-forwarded-prefix', prefix);
  return headers;
}
