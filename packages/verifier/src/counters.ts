import { DENIAL_REASONS, type DenialReason } from '@latchkey/contracts';

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
  /** Questions that the authority did not answer. */
  fillsFailed: number;
  /** Checks refused because too many questions were in flight, in all or from one address. */
  fillsRefused: number;
  renewals: number;
  renewalsFailed: number;
  /** Renewals thrown away because their lease had ended before the answer came. */
  renewalsLate: number;
  releasesFailed: number;
  /** Times that all memory was emptied. */
  resets: number;
  invalidationsApplied: number;
  invalidationsRepeated: number;
  /** Messages of the feed that were too long, malformed or not authentic. */
  messagesDropped: number;
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
    fillsFailed: 0,
    fillsRefused: 0,
    renewals: 0,
    renewalsFailed: 0,
    renewalsLate: 0,
    releasesFailed: 0,
    resets: 0,
    invalidationsApplied: 0,
    invalidationsRepeated: 0,
    messagesDropped: 0,
    acknowledgements: 0,
    acknowledgementsFailed: 0,
    evictions: 0,
    streamsRefused: 0,
    streamsCut: 0,
    streamCutsFailed: 0,
  };
}
