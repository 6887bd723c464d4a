/** Every name that Latchkey uses in Redis. Losing all of Redis loses no token, revocation or audit event. */
export const REDIS = {
  /** Publish/subscribe: invalidations from token-services to verifiers. */
  invalidations: 'latchkey:v1:invalidations',
  /** Publish/subscribe: acknowledgements from verifiers to token-services. */
  acknowledgements: 'latchkey:v1:acknowledgements',
  /** Stream: usage batches from verifiers to jobs, fields `verifier`, `body`, `mac`. */
  usage: 'latchkey:v1:usage',
  usageGroup: 'jobs',
  /** Longest usage stream; beyond it the oldest batches are lost and counted. */
  usageStreamLengthMax: 100_000,
  /** Prefix of rate-limit counters. */
  rateLimit: 'latchkey:v1:rate',
  /** Prefix of BullMQ's keys. */
  queues: 'latchkey:v1:queues',
} as const;
