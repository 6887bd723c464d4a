import type { Actor } from '../authorization/index.js';
import { type Change, type Statement } from '../database/index.js';
import { Refusal } from '../http/index.js';

const WINDOW_MS = 3_600_000;
/**
 * Most secrets that a token, and what it was shown, and so on, is shown in an hour. Automation that makes a token for
 * each of its runs makes one every two seconds with it; what a thief makes of a token in a day is ended within minutes.
 */
export const FAMILY_HOUR_MAX = 2_000;
/** The same where some were imported: one import may be as large as this. */
export const FAMILY_IMPORTED_HOUR_MAX = 10_000;

/** What a family has grown by lately. */
export interface FamilyRow {
  id: string;
  recent: number;
  since: Date | null;
}

/** In: the token that is about to be shown secrets. Out: its family, and what that was shown within the hour. */
export const selectFamily = (tokenId: string): Statement => [
  `SELECT f.id, r.recent, r.since FROM (SELECT COALESCE(family_id, id) AS id FROM tokens WHERE id = $1) f,
     LATERAL (SELECT count(*)::int AS recent, min(created_at) AS since FROM (
       SELECT created_at FROM tokens WHERE family_id = f.id AND created_at > $2 ORDER BY created_at DESC LIMIT $3) n) r`,
  [tokenId, new Date(Date.now() - WINDOW_MS), FAMILY_IMPORTED_HOUR_MAX],
];

/**
 * The family of a new token; null where a person makes it.
 * @param max of the whole family in an hour, the new ones counted
 * @throws Refusal `rate_limited` when it grows too fast. Of several at the same moment each counts what was there before.
 */
export function mustGrowSlowly(family: FamilyRow | undefined, added = 1, max = FAMILY_HOUR_MAX): string | null {
  if (!family) return null;
  if (family.recent + added <= max) return family.id;
  const waitMs = (family.since?.getTime() ?? 0) + WINDOW_MS - Date.now();
  const seconds = Math.max(1, Math.ceil(waitMs / 1_000));
  throw new Refusal(
    'rate_limited',
    `A token, with all that it was shown by issuing and rotating, is shown at most ${max} secrets in an hour. ` +
      `Wait ${seconds} s, or let a person who is signed in do it.`,
    { headers: { 'retry-after': String(seconds) } },
  );
}

/** The same, read at once. */
export async function familyOf(change: Change, actor: Actor, added?: number, max?: number): Promise<string | null> {
  if (actor.type !== 'token') return null;
  const [family] = await change.read<FamilyRow>(selectFamily(actor.tokenId));
  return mustGrowSlowly(family, added, max);
}
