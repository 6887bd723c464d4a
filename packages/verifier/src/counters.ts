import { DENIAL_REASONS, type DenialReason } from '@latchkey/contracts';

/** Why a message of the feed was neither applied nor acknowledged. */
export const FEED_DROPS = [
  'too_long',
  'malformed',
  /** Beyond those kept until the first renewal. */
  'too_early',
  /** Signed with a key that no renewal named. */
  'unknown_key',
  /** Beyond the signatures checked per second. */
  'over_budget',
  'not_authentic',
  /** An applied invalidation of this id has other content: the memory was emptied. */
  'conflict',
  /** Of a log other than the current one. */
  'other_log',
] as const;
export type FeedDrop = (typeof FEED_DROPS)[number];

/** What a verifier has done since its construction. Numbers only rise; their names are labels of metrics. */
export interface Counters {
  /** Checks by outcome. */
  readonly verdicts: Record<'allowed' | DenialReason, number>;
  /** Checks decided from memory. */
  memoryHits: number;
  /** Lookups sent to the authority. */
  fills: number;
  /** Checks that joined a lookup in flight. */
  fillsShared: number;
  /** Responses that can predate an invalidation: neither stored nor used. */
  fillsPoisoned: number;
  /** Responses from another invalidation log than the memory. */
  fillsOfOtherLog: number;
  /** Lookups that failed. */
  fillsFailed: number;
  /** Checks rejected because too many lookups were in flight, in all or from one address. */
  fillsRefused: number;
  renewals: number;
  renewalsFailed: number;
  /** Renewals dropped because their lease had expired before the response arrived. */
  renewalsLate: number;
  /** Renewals that the authority rejected. */
  renewalsRefused: number;
  /** Times that the verifier got another id: its row was deleted, or its lease was ended. */
  identitiesTaken: number;
  /** Renewals sent early because a message named an unknown log, contradicted an applied one, or was dropped unread. */
  renewalsUrged: number;
  releasesFailed: number;
  /** Times that the whole memory was emptied. */
  resets: number;
  /** Times that entries looked up since the previous renewal were dropped, because PostgreSQL had restarted. */
  doubts: number;
  invalidationsApplied: number;
  invalidationsRepeated: number;
  /** Messages of the feed dropped, by reason. */
  readonly messagesDropped: Record<FeedDrop, number>;
  acknowledgements: number;
  acknowledgementsFailed: number;
  /** Remembered tokens evicted to make room. */
  evictions: number;
  streamsRefused: number;
  streamsCut: number;
  /** Streams whose `cut` threw. */
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
