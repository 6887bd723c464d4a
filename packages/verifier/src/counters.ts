import { DENIAL_REASONS, type DenialReason } from '@latchkey/contracts';

/** Why a message of the feed was neither applied nor acknowledged. */
export const FEED_DROPS = [
  'too_long',
  'malformed',
  /** More came before the first renewal than are kept. */
  'too_early',
  /** By a key that renewals do not name. */
  'unknown_key',
  /** Beyond the signatures that are checked in a second. */
  'over_budget',
  'not_authentic',
  /** An invalidation known by this id says something else: memory was emptied. */
  'conflict',
  /** Of a log that is not the current one. */
  'other_log',
] as const;
export type FeedDrop = (typeof FEED_DROPS)[number];

/** What a verifier has done since it was made. Plain numbers that only rise. */
export interface Counters {
  /** Checks by their outcome. */
  readonly verdicts: Record<'allowed' | DenialReason, number>;
  /** Checks answered from memory. */
  memoryHits: number;
  /** Questions sent to the authority. */
  fills: number;
  /** Checks that joined a question in flight. */
  fillsShared: number;
  /** Answers that an invalidation had overtaken: neither stored nor used. */
  fillsPoisoned: number;
  /** Questions answered from another history than what is remembered. */
  fillsOfOtherLog: number;
  /** Questions that the authority did not answer. */
  fillsFailed: number;
  /** Checks refused because too many questions were in flight, in all or from one address. */
  fillsRefused: number;
  renewals: number;
  renewalsFailed: number;
  /** Renewals thrown away because their lease had ended before the answer came. */
  renewalsLate: number;
  /** Renewals that the authority refused. */
  renewalsRefused: number;
  /** Times that the verifier got another id: its row was gone, or its lease was ended. */
  identitiesTaken: number;
  /** Renewals hurried on because a message named an unknown log or contradicted what was applied. */
  renewalsUrged: number;
  releasesFailed: number;
  /** Times that all memory was emptied. */
  resets: number;
  /** Times that what was looked up since the renewal before was overtaken, because PostgreSQL had been started. */
  doubts: number;
  invalidationsApplied: number;
  invalidationsRepeated: number;
  /** Messages of the feed dropped, by reason. */
  readonly messagesDropped: Record<FeedDrop, number>;
  acknowledgements: number;
  acknowledgementsFailed: number;
  /** Remembered tokens forgotten to make room. */
  evictions: number;
  streamsRefused: number;
  streamsCut: number;
  /** Streams whose own `cut` threw. */
  streamCutsFailed: number;
}

export function newCounters(): Counters {
  const verdicts = Object.fromEntries(['allowed', ...DENIAL_REASONS].map((outcome) => [outcome, 0]));
  return {
    verdicts: verdicts as Counters['verdicts'],
    memoryHits: 0,
    fills: 0,
    fillsShared: 0,
    fillsPoisoned: 0,
    fillsOfOtherLog: 0,
    fillsFailed: 0,
    fillsRefused: 0,
    renewals: 0,
    renewalsFailed: 0,
    renewalsLate: 0,
    renewalsRefused: 0,
    identitiesTaken: 0,
    renewalsUrged: 0,
    releasesFailed: 0,
    resets: 0,
    doubts: 0,
    invalidationsApplied: 0,
    invalidationsRepeated: 0,
    messagesDropped: Object.fromEntries(FEED_DROPS.map((reason) => [reason, 0])) as Counters['messagesDropped'],
    acknowledgements: 0,
    acknowledgementsFailed: 0,
    evictions: 0,
    streamsRefused: 0,
    streamsCut: 0,
    streamCutsFailed: 0,
  };
}
