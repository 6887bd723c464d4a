import { type Logger, OutageLog } from '@latchkey/runtime';
import type { Queue } from 'bullmq';
import type { Job } from './job.js';

/** How often the schedule in Redis is compared with the one in code. */
const REPAIR_EVERY_MS = 5_000;

/**
 * Keeps BullMQ's schedulers equal to the schedule. They are in Redis under the jobs' names, shared by all workers; one
 * that is missing (Redis was emptied), changed, or stuck is written again.
 */
export class Scheduler {
  private timer: NodeJS.Timeout | undefined;
  private running: Promise<void> = Promise.resolve();
  private stopped = false;

  constructor(
    private readonly queues: ReadonlyMap<string, Queue>,
    private readonly schedule: readonly Job[],
    private readonly logger: Logger,
  ) {}

  start(): void {
    const outage = new OutageLog(this.logger, 'the schedule in Redis', 'retrying');
    const turn = () => {
      this.running = this.repair()
        .then(
          () => outage.worked(),
          (error: Error) => outage.failed(error.message),
        )
        .then(() => {
          if (!this.stopped) this.timer = setTimeout(turn, REPAIR_EVERY_MS);
        });
    };
    turn();
  }

  async stop(): Promise<void> {
    this.stopped = true;
    clearTimeout(this.timer);
    await this.running;
  }

  /** Writes every scheduler that differs from the schedule, and removes those of jobs that no longer exist. */
  async repair(): Promise<void> {
    for (const [name, queue] of this.queues) {
      const jobs = this.schedule.filter((job) => job.queue === name);
      const found = new Map((await queue.getJobSchedulers(0, -1)).map((s) => [s.key, s]));
      for (const job of jobs) {
        const scheduler = found.get(job.name);
        found.delete(job.name);
        if (scheduler?.every === job.everyMs && !isStuck(scheduler.next, job.everyMs)) continue;
        if (scheduler) await queue.removeJobScheduler(job.name);
        await queue.upsertJobScheduler(job.name, { every: job.everyMs }, { name: job.name, opts: optionsOf(job) });
      }
      for (const key of found.keys()) await queue.removeJobScheduler(key);
    }
  }
}

/** Long overdue; or so far ahead that a worker with a wrong clock wrote it, and all others would wait for that time. */
function isStuck(nextMs: number | undefined, everyMs: number): boolean {
  const lateMs = nextMs ? Date.now() - nextMs : 0;
  return lateMs > Math.max(60_000, 2 * everyMs) || lateMs < -(everyMs + 30_000);
}

/** A frequent job needs few retries: the next run does the same. */
function optionsOf(job: Job) {
  return {
    attempts: job.everyMs < 10_000 ? 3 : 8,
    backoff: { type: 'exponential', delay: 1_000, jitter: 0.5 },
    removeOnComplete: { count: 100 },
    removeOnFail: { count: 500, age: 7 * 86_400 },
  };
}
