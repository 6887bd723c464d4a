import { challenge, ERRORS, type ErrorCode, type Problem, problem } from '@latchkey/contracts';

export const REALM = 'latchkey';
/** `Retry-After` of a 503, seconds. */
export const RETRY_AFTER_S = 1;

/** An error before it is rendered: as an HTTP response, on a bare socket, or in a gRPC message. */
export interface ErrorResponse {
  readonly code: ErrorCode;
  readonly detail: string;
  /** Scopes named by the `insufficient_scope` challenge. */
  readonly scopes?: readonly string[];
  readonly headers?: Readonly<Record<string, string>>;
  readonly errors?: Problem['errors'];
}

/** Status, headers (lower case) and body of an error response (RFC 9457, RFC 6750 section 3). */
export function renderError(
  error: ErrorResponse,
  requestId: string,
): { status: number; headers: Record<string, string>; body: string } {
  const body = JSON.stringify(problem(error.code, error.detail, requestId, error.errors));
  const headers: Record<string, string> = {
    'content-type': 'application/problem+json',
    'content-length': String(Buffer.byteLength(body)),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    'x-request-id': requestId,
  };
  const authenticate = challenge(error.code, REALM, error.scopes);
  if (authenticate) headers['www-authenticate'] = authenticate;
  const { status } = ERRORS[error.code];
  if (status === 503 || status === 429) headers['retry-after'] = String(RETRY_AFTER_S);
  return { status, headers: { ...headers, ...error.headers }, body };
}
