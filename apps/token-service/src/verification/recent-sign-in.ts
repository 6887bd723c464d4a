import type { UserActor } from '../authorization/index.js';
import type { Statement } from '../database/index.js';
import { ApiError } from '../http/index.js';

/** In: a signed-in person. Out: whether they signed in within ten minutes: read it under the locks of the change. */
export const selectRecentSignIn = ({ sessionId }: Pick<UserActor, 'sessionId'>): Statement => [
  `SELECT created_at > now() - interval '10 minutes' AS recent FROM sessions WHERE id = $1`,
  [sessionId],
];

/**
 * For what must not be possible from an unattended browser: signing in again, with the second factor where there is one,
 * proves that it is still the same person. With an identity provider it proves only what the provider checks: one with a
 * session for the browser may not ask the person anything.
 * @param row as `selectRecentSignIn` returned it
 * @throws ApiError `reauthentication_required`
 */
export function mustBeRecent(row: object | undefined): void {
  if (row && 'recent' in row && row.recent === true) return;
  throw new ApiError(
    'reauthentication_required',
    'You signed in more than ten minutes ago, and this request requires a newer sign-in. Sign in again, then repeat it.',
  );
}
