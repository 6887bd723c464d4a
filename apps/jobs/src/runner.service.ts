import { setTimeout as sleep } from 'node:timers/promises';
import { Injectable } from '@nestjs/common';
import type { Job, JobContext } from './job.js';
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
  private readonly running = new Map<string, number>();

  /** @param named finds a job by its name; by default in the schedule */
  constructor(
    private readonly base: Omit<JobContext, 'signal'>,
    private readonly named: (name: string) => Job = jobNamed,
  ) {}

  /** @throws what a step throws; BullMQ retries with back-off */
  async run(name: string): Promise<RunReport> {
    const job = this.named(name);
    // A long run must not take the places of other jobs: the schedule goes on asking for it meanwhile.
    const others = this.running.get(name) ?? 0;
    if (others >= (job.parallel ?? 1)) return { done: 0, steps: 0 };
    this.running.set(name, others + 1);
    try {
      if (job.rest === undefined) return await this.steps(job);
      return await aloneInAllWorkers(this.base, job, () => this.steps(job));
    } finally {
      this.running.set(name, this.running.get(name)! - 1);
    }
  }

  /** From now on a run ends after the step at hand. */
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
 * Does it while no other worker does, or not at all. The lock belongs to a connection, so that it goes with a worker
 * that is killed; should the connection be lost meanwhile, two run side by side, which every job bears.
 */
async function aloneInAllWorkers(
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
