import { IDENTITY_HEADERS, REQUEST_ID_HEADER } from '@latchkey/contracts';
import type { Principal } from '@latchkey/verifier';
import type { RequestHead } from './request-head.js';
import { withoutSessionCookie } from './request-head.js';

/** Appends who calls, for the upstream. Names and values by turns. */
export function pushIdentity(headers: string[], principal: Principal): void {
  const { tokenId, ownerType, ownerId, project, scopes } = principal;
  headers.push(IDENTITY_HEADERS.tokenId, tokenId, IDENTITY_HEADERS.owner, `${ownerType}:${ownerId}`);
  if (project !== '') headers.push(IDENTITY_HEADERS.project, project);
  headers.push(IDENTITY_HEADERS.scopes, scopes.length === 1 ? scopes[0]! : scopes.join(' '));
}

/** What to leave of the caller's own credentials in a forwarded request. */
export interface Credentials {
  readonly authorization: boolean;
  /** The console's session cookie. */
  readonly session: boolean;
}

/**
 * A request's headers for the upstream: those that passed, then what the gateway says. Adds to `head.passed` and
 * answers it, so call it once.
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
