import type { MaintenanceMethods } from '@latchkey/contracts';
import type { Caller, Logger } from '@latchkey/runtime';
import type { Redis } from 'ioredis';
import type { DataSource } from 'typeorm';
import type { JobsConfig } from './config.js';
import type { JobMetrics } from './ops/index.js';

/** What every job works with. Jobs have no payload. */
export interface JobContext {
  config: JobsConfig;
  database: DataSource;
  redis: Redis;
  maintenance: Caller<MaintenanceMethods>;
  metrics: JobMetrics;
  logger: Logger;
  /** Fires when the worker has to stop: finish the current step, begin no other. */
  signal: AbortSignal;
}

/** What one step did. `more`: more work is due now. */
export interface StepReport {
  done: number;
  more: boolean;
}

export const QUEUES = ['tokens', 'audit', 'usage', 'notices'] as const;
export type QueueName = (typeof QUEUES)[number];

/**
 * One job. `step` is bounded, idempotent, and safe to run concurrently and to be killed at any point; it reads the work
 * that is due from PostgreSQL or the stream each time.
 */
export interface Job {
  name: string;
  queue: QueueName;
  everyMs: number;
  /** Shown in the generated table of jobs. */
  description: string;
  /** Concurrent runs in one worker; a further one ends at once, having done nothing. Default 1. */
  parallel?: number;
  /**
   * For work that must not slow down the management API: one worker of all runs it at a time, and after each step it
   * pauses for this many times as long as the step took. Default: neither.
   */
  rest?: number;
  step(context: JobContext): Promise<StepReport>;
}

/** Nothing was due. */
export const NOTHING: StepReport = { done: 0, more: false };
