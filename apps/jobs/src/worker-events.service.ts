import { isUnavailable, type Logger } from '@latchkey/runtime';
import type { Job as QueuedJob } from 'bullmq';
import type { JobMetrics } from './ops/index.js';

/** Logs and counts the events of workers. */
export class WorkerEvents {
  private readonly recent = new Set<string>();

  constructor(
    private readonly logger: Logger,
    private readonly metrics: JobMetrics,
  ) {}

  failed(queue: string, job: QueuedJob | undefined, error: Error): void {
    const left = job ? (job.opts.attempts ?? 1) - job.attemptsMade : 0;
    const fields = { queue, job: job?.name, attempt: job?.attemptsMade, attemptsLeft: left };
    if (isUnavailable(error))
      this.logger.warn({ ...fields, reason: error.message }, 'the token-service is unavailable; retrying');
    else this.logger.error({ ...fields, err: error }, 'a job failed');
  }

  stalled(queue: string, id: string): void {
    this.metrics.stalled.inc({ queue });
    this.logger.warn({ queue, id }, 'a job stalled: its worker died; another worker takes it');
  }

  /** Connections can fail many times a second: logged once per queue in 10 s. */
  error(queue: string, error: Error): void {
    if (this.recent.has(queue)) return;
    this.recent.add(queue);
    setTimeout(() => this.recent.delete(queue), 10_000).unref();
    this.logger.warn({ queue, reason: error.message }, 'a worker failed; retrying');
  }
}

/** Injection token. */
export const WORKER_EVENTS = Symbol('WorkerEvents');
