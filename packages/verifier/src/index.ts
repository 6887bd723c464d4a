export { Budget } from './budget.js';
export { type Counters, newCounters } from './counters.js';
export { strictestRate } from './facts.js';
export { judgeFacts } from './judge.js';
export { DEFAULT_LIMITS, type VerifierLimits } from './limits.js';
export { type Moment, Timekeeper } from './time.js';
export * from './types.js';
export { Verifier, type VerifierOptions, type VerifierState } from './verifier.js';
export { type WatchCall, WatchFeed, type WatchFeedOptions } from './watch-feed.js';
