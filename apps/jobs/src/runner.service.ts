import { Injectable } from '@nestjs/common';
import type { JobContext } from './job.js';
import { jobNamed } from './schedule.js';

/** Longest that one run goes on taking steps; what is left is the next run's. Keeps runs far below BullMQ's lock. */
export const RUN_MS_MAX = 20_000;

export interface RunReport {
  done: number;
  steps: number;
}

/** Runs a job of the schedule, step by step, until nothing is due, its time is over, or the worker stops. */
@Injectable()
export class JobRunner {
  private readonly stopping = new AbortController();

  constructor(private readonly base: Omit<JobContext, 'signal'>) {}

  /** @throws what a step throws; BullMQ retries with back-off */
  async run(name: string): Promise<RunReport> {
    const job = jobNamed(name);
    const context: JobContext = { ...this.base, signal: this.stopping.signal };
    const startedAt = performance.now();
    const report: RunReport = { done: 0, steps: 0 };
    let outcome = 'failed';
    try {
      for (;;) {
        const { done, more } = await job.step(context);
        report.done += done;
        report.steps++;
        if (!more || this.stopping.signal.aborted || performance.now() - startedAt > RUN_MS_MAX) break;
      }
      outcome = 'completed';
      return report;
    } finally {
      this.base.metrics.ran(job, outcome, (performance.now() - startedAt) / 1000, report.done);
    }
  }

  /** From now on a run ends after the step at hand. */
  stop(): void {
    this.stopping.abort();
  }
}
