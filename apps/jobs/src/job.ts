import type { MaintenanceMethods } from '@latchkey/contracts';
import type { Caller, Logger } from '@latchkey/runtime';
import type { Redis } from 'ioredis';
import type { DataSource } from 'typeorm';
import type { JobsConfig } from './config.js';
import type { JobMetrics } from './ops/index.js';

/** What every job works with. Nothing comes with the job itself: jobs carry no payload. */
export interface JobContext {
  config: JobsConfig;
  database: DataSource;
  redis: Redis;
  maintenance: Caller<MaintenanceMethods>;
  metrics: JobMetrics;
  logger: Logger;
  /** Fires when the worker is to stop: finish the step at hand, begin no other. */
  signal: AbortSignal;
}

/** What one step did. `more`: another step has something to do at once. */
export interface StepReport {
  done: number;
  more: boolean;
}

export const QUEUES = ['tokens', 'audit', 'usage', 'notices'] as const;
export type QueueName = (typeof QUEUES)[number];

/**
 * One job. `step` is bounded, safe to run twice, at the same time as itself, and to be killed in the middle; it reads
 * what there is to do from PostgreSQL or the stream each time.
 */
export interface Job {
  name: string;
  queue: QueueName;
  everyMs: number;
  /** For people: the generated table of jobs and the board. */
  description: string;
  /** Runs of it at one time in one worker; a further one ends at once, having done nothing. Default 1. */
  parallel?: number;
  /**
   * For work that people at the management API must not feel: of all workers one runs it at a time, and after each step
   * it rests for so many times as long as the step took. Default: none of that.
   */
  rest?: number;
  step(context: JobContext): Promise<StepReport>;
}

/** Nothing was due. */
export const NOTHING: StepReport = { done: 0, more: false };
