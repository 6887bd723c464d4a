import { setTimeout as sleep } from 'node:timers/promises';
import { Injectable } from '@nestjs/common';
import type { Job, JobContext } from './job.js';
import { jobNamed } from './schedule.js';

/** Longest time for which one run begins steps; the next run does the rest. Far below BullMQ's lock duration. */
export const RUN_MS_MAX = 20_000;

export interface RunReport {
  done: number;
  steps: number;
}

/** Runs a job of the schedule, step by step, until nothing is due, RUN_MS_MAX is over, or the worker stops. */
@Injectable()
export class JobRunner {
  private readonly stopping = new AbortController();
  private readonly running = new Map<string, number>();

  /** @param named finds a job by its name; by default in the schedule */
  constructor(
    private readonly base: Omit<JobContext, 'signal'>,
    private readonly named: (name: string) => Job = jobNamed,
  ) {}

  /** @throws what a step throws; BullMQ retries with backoff */
  async run(name: string): Promise<RunReport> {
    const job = this.named(name);
    // The schedule adds further runs during a long one; they must not use up the worker's concurrency.
    const others = this.running.get(name) ?? 0;
    if (others >= (job.parallel ?? 1)) return { done: 0, steps: 0 };
    this.running.set(name, others + 1);
    try {
      if (job.rest === undefined) return await this.steps(job);
      return await withLock(this.base, job, () => this.steps(job));
    } finally {
      this.running.set(name, this.running.get(name)! - 1);
    }
  }

  /** From now on a run ends after its current step. */
  stop(): void {
    this.stopping.abort();
  }

  private async steps(job: Job): Promise<RunReport> {
    const context: JobContext = { ...this.base, signal: this.stopping.signal };
    const startedAt = performance.now();
    const report: RunReport = { done: 0, steps: 0 };
    let outcome = 'failed';
    try {
      for (;;) {
        const stepAt = performance.now();
        const { done, more } = await job.step(context);
        report.done += done;
        report.steps++;
        if (!more || this.stopping.signal.aborted || performance.now() - startedAt > RUN_MS_MAX) break;
        if (job.rest) await this.pause((performance.now() - stepAt) * job.rest);
      }
      outcome = 'completed';
      return report;
    } finally {
      this.base.metrics.ran(job, outcome, (performance.now() - startedAt) / 1000, report.done);
    }
  }

  private pause(ms: number): Promise<void> {
    return sleep(ms, undefined, { signal: this.stopping.signal }).catch(() => undefined);
  }
}

/**
 * Runs it if no other worker does. The lock belongs to a connection, so that it is released when the worker is killed; if
 * the connection is lost during the run, two workers run the job concurrently, which is safe for every job.
 */
async function withLock(
  { database }: Pick<JobContext, 'database'>,
  job: Job,
  run: () => Promise<RunReport>,
): Promise<RunReport> {
  const lock = `latchkey job ${job.name}`;
  const db = database.createQueryRunner();
  try {
    const [{ taken }] = await db.query('SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS taken', [lock]);
    if (!taken) return { done: 0, steps: 0 };
    try {
      return await run();
    } finally {
      await db.query('SELECT pg_advisory_unlock(hashtextextended($1, 0))', [lock]);
    }
  } finally {
    await db.release();
  }
}
