import type { UserActor } from '../authorization/index.js';
import type { Statement } from '../database/index.js';
import { ApiError } from '../http/index.js';

/** In: whoever is signed in. Out: whether that was within ten minutes: read it under the locks of the change. */
export const selectRecentSignIn = ({ sessionId }: Pick<UserActor, 'sessionId'>): Statement => [
  `SELECT created_at > now() - interval '10 minutes' AS recent FROM sessions WHERE id = $1`,
  [sessionId],
];

/**
 * For what nobody is to do from a browser that was left open: signing in again shows, with the second factor where there
 * is one, that it is still the same person. With another sign-in service it shows as much as that service asks for: one
 * that remembers the browser lets it in without a word.
 * @param row as `selectRecentSignIn` found it
 */
export function mustBeRecent(row: object | undefined): void {
  if (row && 'recent' in row && row.recent === true) return;
  throw new ApiError(
    'reauthentication_required',
    'You signed in more than ten minutes ago, and this asks for more. Sign in again, then repeat it.',
  );
}
