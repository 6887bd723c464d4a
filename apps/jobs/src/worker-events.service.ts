import { isUnavailable, type Logger } from '@latchkey/runtime';
import type { Job as QueuedJob } from 'bullmq';
import type { JobMetrics } from './ops/index.js';

/** Where workers say what happened to them. */
export class WorkerEvents {
  private readonly away = new Set<string>();

  constructor(
    private readonly logger: Logger,
    private readonly metrics: JobMetrics,
  ) {}

  failed(queue: string, job: QueuedJob | undefined, error: Error): void {
    const left = job ? (job.opts.attempts ?? 1) - job.attemptsMade : 0;
    const facts = { queue, job: job?.name, attempt: job?.attemptsMade, attemptsLeft: left };
    if (isUnavailable(error)) this.logger.warn({ ...facts, reason: error.message }, 'the token-service is away');
    else this.logger.error({ ...facts, err: error }, 'a job failed');
  }

  stalled(queue: string, id: string): void {
    this.metrics.stalled.inc({ queue });
    this.logger.warn({ queue, id }, 'a worker died at this job: it goes to another');
  }

  /** Connection faults come many times a second: one line per queue until the next success is enough. */
  error(queue: string, error: Error): void {
    if (this.away.has(queue)) return;
    this.away.add(queue);
    setTimeout(() => this.away.delete(queue), 10_000).unref();
    this.logger.warn({ queue, reason: error.message }, 'a worker is in trouble; it goes on trying');
  }
}

/** By this name Nest hands it in. */
export const WORKER_EVENTS = Symbol('WorkerEvents');
