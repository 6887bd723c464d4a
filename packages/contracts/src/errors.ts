import { z } from 'zod';
import type { DenialReason } from './denials.js';

/**
 * Every error code of the HTTP APIs, with its status and meaning. The list is closed: no other code can be returned.
 * `docs/generated/errors.md` is generated from it.
 */
export const ERRORS = {
  invalid_request: {
    status: 400,
    title: 'The request is malformed',
    meaning: 'A field, header, path or query is wrong; `errors` names each.',
  },
  unauthenticated: {
    status: 401,
    title: 'Sign-in or a token is required',
    meaning: 'Neither a session cookie nor a Bearer token came with the request.',
  },
  invalid_token: {
    status: 401,
    title: 'The token is not accepted',
    meaning:
      'The token is malformed, unknown, revoked, expired or disabled. An administrator or its owner can look the requestId up.',
  },
  sign_in_failed: {
    status: 401,
    title: 'Sign-in failed',
    meaning: 'The email address, the password or the second factor is wrong.',
  },
  second_factor_required: {
    status: 401,
    title: 'A second factor is required',
    meaning:
      'The credentials are right; send the one-time code too: as `code` at sign-in, as `secondFactor` with a reset code.',
  },
  insufficient_scope: {
    status: 403,
    title: 'The token lacks a right',
    meaning: 'The token does not have the required scope, or not in this project.',
  },
  address_not_allowed: {
    status: 403,
    title: 'The address is not allowed',
    meaning: 'The token can only be used from the addresses in its allowedIps.',
  },
  forbidden: {
    status: 403,
    title: 'Not permitted',
    meaning: 'The person signed in, or the token, does not have permission for this.',
  },
  reauthentication_required: {
    status: 403,
    title: 'A recent sign-in is required',
    meaning: 'The sign-in is older than ten minutes. Sign in again, then repeat the request.',
  },
  cross_site: {
    status: 403,
    title: 'Cross-site request refused',
    meaning: 'A state-changing request with a session cookie came from another origin.',
  },
  not_found: {
    status: 404,
    title: 'Not found',
    meaning: 'The resource does not exist, or the caller has no permission to see it.',
  },
  not_signed: {
    status: 404,
    title: 'The receipt is not signed',
    meaning:
      'A JWT was requested, but the service had no RECEIPT_SIGNING_KEY when the receipt was made, or it covers several changes.',
  },
  method_not_allowed: {
    status: 405,
    title: 'Method not allowed',
    meaning: 'The path exists, but not with this method; `Allow` lists the methods.',
  },
  request_timeout: {
    status: 408,
    title: 'The request did not arrive in time',
    meaning: 'Headers or body stopped arriving before they were complete.',
  },
  conflict: {
    status: 409,
    title: 'Conflict with the present state',
    meaning: 'For example a name in use, a token already rotated, the last administrator.',
  },
  idempotency_conflict: {
    status: 409,
    title: 'Idempotency-Key used for another request',
    meaning: 'The same key was used before with another body.',
  },
  too_large: { status: 413, title: 'The request is too large', meaning: 'A body, header or list exceeds its limit.' },
  uri_too_long: {
    status: 414,
    title: 'The request target is too long',
    meaning: 'Path and query together exceed 8,192 characters.',
  },
  unsupported_media_type: {
    status: 415,
    title: 'Unsupported media type',
    meaning: 'Send `Content-Type: application/json` (forms on /oauth2).',
  },
  too_many_matches: {
    status: 422,
    title: 'Too many tokens match',
    meaning: 'The filter matches more tokens than one request can revoke. Narrow it; nothing was changed.',
  },
  reload_failed: {
    status: 422,
    title: 'The files cannot be used',
    meaning: 'POST /reload on an ops port: `detail` names file and reason; what was in use before stays in use.',
  },
  rate_limited: { status: 429, title: 'Too many requests', meaning: 'Wait as long as `Retry-After` says.' },
  header_too_large: {
    status: 431,
    title: 'The request headers are too large',
    meaning: 'All headers together exceed 16 KiB.',
  },
  internal: {
    status: 500,
    title: 'Internal error',
    meaning: 'An internal fault; search the logs for the requestId.',
  },
  bad_gateway: {
    status: 502,
    title: 'Bad response from the upstream',
    meaning: 'The upstream closed the connection or did not send HTTP.',
  },
  unavailable: {
    status: 503,
    title: 'Temporarily unavailable',
    meaning: 'A required service is unavailable; retry after `Retry-After`. It means nothing about the token.',
  },
  restored: {
    status: 503,
    title: 'The database was restored from a backup',
    meaning:
      'The token was issued before the restore, and may have been revoked after the backup. It is not accepted until an administrator has settled the restore.',
  },
  upstream_timeout: {
    status: 504,
    title: 'The upstream did not respond in time',
    meaning: "The route's timeoutMs passed.",
  },
} as const satisfies Record<string, { status: number; title: string; meaning: string }>;

export type ErrorCode = keyof typeof ERRORS;
export const ERROR_CODES = Object.keys(ERRORS) as [ErrorCode, ...ErrorCode[]];

/** RFC 9457 problem details, the body of every HTTP error (`application/problem+json`). */
export const problemSchema = z
  .object({
    type: z.string().meta({ examples: ['urn:latchkey:error:invalid_request'] }),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    code: z.enum(ERROR_CODES),
    requestId: z.string(),
    error: z
      .enum(['invalid_request', 'invalid_client', 'invalid_token', 'insufficient_scope'])
      .optional()
      .meta({ description: 'of the OAuth 2.0 endpoints (RFC 6749 section 5.2, RFC 6750 section 3.1)' }),
    errors: z.array(z.object({ field: z.string(), message: z.string() })).optional(),
  })
  .meta({ id: 'Problem' });
export type Problem = z.infer<typeof problemSchema>;

/** The `error` of an OAuth 2.0 endpoint (RFC 6749 section 5.2, RFC 6750 section 3.1); undefined where none of theirs fits. */
export function oauthError(code: ErrorCode): Problem['error'] {
  switch (code) {
    case 'unauthenticated':
      return 'invalid_client';
    case 'invalid_token':
    case 'insufficient_scope':
      return code;
    case 'invalid_request':
    case 'unsupported_media_type':
    case 'too_large':
      return 'invalid_request';
    default:
      return undefined;
  }
}

/** The error code for a denial (RFC 6750 section 3.1): the same for all states of a token. */
export function codeForDenial(reason: DenialReason): ErrorCode {
  switch (reason) {
    case 'insufficient_scope':
    case 'wrong_project':
      return 'insufficient_scope';
    case 'address_not_allowed':
    case 'rate_limited':
    case 'restored':
    case 'unavailable':
      return reason;
    case 'malformed':
    case 'bad_checksum':
    case 'unknown':
    case 'revoked':
    case 'expired':
    case 'disabled':
    case 'owner_disabled':
    case 'project_closed':
      return 'invalid_token';
  }
}

/** The body of an error response. */
export function problem(code: ErrorCode, detail: string, requestId: string, errors?: Problem['errors']): Problem {
  const { status, title } = ERRORS[code];
  return {
    type: `urn:latchkey:error:${code}`,
    title,
    status,
    detail,
    code,
    requestId,
    ...(errors?.length ? { errors } : {}),
  };
}

/** `WWW-Authenticate` for a Bearer check (RFC 6750 section 3); undefined for responses without one. */
export function challenge(code: ErrorCode, realm: string, scopes: readonly string[] = []): string | undefined {
  switch (code) {
    case 'unauthenticated':
      return `Bearer realm="${realm}"`;
    case 'invalid_token':
      return `Bearer realm="${realm}", error="invalid_token", error_description="The token is not accepted"`;
    case 'insufficient_scope':
      return `Bearer realm="${realm}", error="insufficient_scope"${scopes.length ? `, scope="${scopes.join(' ')}"` : ''}`;
    case 'invalid_request':
      return `Bearer realm="${realm}", error="invalid_request"`;
    default:
      return undefined;
  }
}
