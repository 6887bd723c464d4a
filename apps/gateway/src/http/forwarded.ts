import { IDENTITY_HEADERS, REQUEST_ID_HEADER } from '@latchkey/contracts';
import type { Principal } from '@latchkey/verifier';
import { withoutSessionCookie } from './cookies.js';
import { OWN_NAME, PASSED_BY_HEADER } from './request-fields.js';
import type { RequestHead } from './request-head.js';

/** The identity headers as lines. */
export function identityLines({ tokenId, ownerType, ownerId, project, scopes }: Principal): string {
  const ownProject = project === '' ? '' : `${IDENTITY_HEADERS.project}: ${project}\r\n`;
  return `${IDENTITY_HEADERS.tokenId}: ${tokenId}\r\n${IDENTITY_HEADERS.owner}: ${ownerType}:${ownerId}\r\n${ownProject}${IDENTITY_HEADERS.scopes}: ${scopes.length === 1 ? scopes[0]! : scopes.join(' ')}\r\n`;
}

/** Which of the caller's credentials a forwarded request keeps. */
export interface Credentials {
  readonly authorization: boolean;
  /** The console's session cookie. */
  readonly session: boolean;
}

/** A request's header lines for the upstream: those that passed, then the gateway's. Without Host and framing. */
export function forwardedLines(head: RequestHead, credentials: Credentials, prefix: string): string {
  let lines = head.passed;
  if (credentials.authorization && head.authorization !== undefined)
    lines += `authorization: ${head.authorization}\r\n`;
  if (head.cookie !== undefined) {
    const cookie = credentials.session ? head.cookie : withoutSessionCookie(head.cookie);
    if (cookie !== undefined) lines += `cookie: ${cookie}\r\n`;
  }
  lines += `${REQUEST_ID_HEADER}: ${head.requestId}\r\nx-forwarded-for: ${head.forwardedFor}\r\nx-forwarded-proto: ${head.forwardedProto}\r\n`;
  lines += head.passedBy === '' ? PASSED_BY : `${PASSED_BY_HEADER}: ${head.passedBy}, ${OWN_NAME}\r\n`;
  if (head.maxForwards !== undefined) lines += `max-forwards: ${head.maxForwards - 1}\r\n`;
  if (head.forwardedHost !== '') lines += `x-forwarded-host: ${head.forwardedHost}\r\n`;
  if (prefix !== '') lines += `x-forwarded-prefix: ${prefix}\r\n`;
  return lines;
}

const PASSED_BY = `${PASSED_BY_HEADER}: ${OWN_NAME}\r\n`;
