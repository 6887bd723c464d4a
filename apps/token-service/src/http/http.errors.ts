import { type DenialReason, ERRORS, type ErrorCode, type Problem } from '@latchkey/contracts';

/** An error for the caller: a code of the closed list, and a detail that says what happened and what to do. */
export class ApiError extends Error {
  override name = 'ApiError';
  constructor(
    readonly code: ErrorCode,
    readonly detail: string,
    readonly extra: {
      /** By field, for `invalid_request`. */
      errors?: Problem['errors'];
      /** Named in the `insufficient_scope` challenge. */
      scopes?: readonly string[];
      headers?: Record<string, string>;
      /** Whether Bearer credentials were checked, so that the response contains a challenge (RFC 6750). */
      bearer?: boolean;
      /** Stored, so that an administrator or the token's owner can look it up by the requestId. */
      denial?: { reason: DenialReason; tokenId?: string | undefined };
    } = {},
  ) {
    super(detail);
  }
}

/** Invalid input in one field. */
export function badField(field: string, message: string): ApiError {
  return new ApiError('invalid_request', `${field}: ${message}`, { errors: [{ field, message }] });
}

export const notFound = (what: string): ApiError =>
  new ApiError('not_found', `There is no such ${what}, or you may not see it.`);

export const forbidden = (detail: string): ApiError => new ApiError('forbidden', detail);

export const lacksScope = (scopes: readonly string[], detail?: string): ApiError =>
  new ApiError('insufficient_scope', detail ?? `The token does not have ${scopes.join(' ')}, or not here.`, {
    scopes,
    bearer: true,
  });

export const conflict = (detail: string): ApiError => new ApiError('conflict', detail);

export const unavailable = (detail: string): ApiError =>
  new ApiError('unavailable', detail, { headers: { 'retry-after': '1' } });

/** A token was issued before a restore that is not settled yet. */
export const restored = (denial?: ApiError['extra']['denial']): ApiError =>
  new ApiError('restored', ERRORS.restored.meaning, {
    headers: { 'retry-after': '1' },
    ...(denial && { denial }),
  });
