import { isPostgresUnavailable, isUnavailable, type Logger, OutageLog } from '@latchkey/runtime';
import type { Job as QueuedJob } from 'bullmq';
import type { JobMetrics } from './ops/index.js';

type Dependency = 'PostgreSQL' | 'Redis' | 'the token-service';

/** How often a job that fails again and again for one reason is logged. */
const REPEAT_MS = 300_000;

/** An outage is over when a job that failed has completed, and none has failed for so long: some runs need nothing. */
const QUIET_MS = 5_000;

/** Logs and counts the events of workers: what fails for one reason again and again once, and when it works again. */
export class WorkerEvents {
  private readonly outages: Readonly<Record<Dependency, OutageLog>>;
  /** Which jobs failed for want of what. */
  private readonly waiting = new Map<string, Dependency>();
  private readonly failing = new Map<string, { reason: string; failures: number; loggedAt: number }>();

  constructor(
    private readonly logger: Logger,
    private readonly metrics: JobMetrics,
  ) {
    const outage = (what: string) => new OutageLog(logger, what, 'jobs fail and are retried', QUIET_MS);
    this.outages = {
      PostgreSQL: outage('PostgreSQL'),
      Redis: outage('Redis'),
      'the token-service': outage('the token-service'),
    };
  }

  failed(queue: string, job: QueuedJob | undefined, error: Error): void {
    const name = job?.name ?? queue;
    const dependency = dependencyOf(error);
    if (dependency) {
      this.waiting.set(name, dependency);
      this.outages[dependency].failed(error.message, { queue, job: name });
      return;
    }
    const now = performance.now();
    const before = this.failing.get(name);
    const isRepeated = before?.reason === error.message;
    const failures = isRepeated ? before.failures + 1 : 1;
    const isDue = !isRepeated || now - before.loggedAt > REPEAT_MS;
    this.failing.set(name, { reason: error.message, failures, loggedAt: isDue ? now : before.loggedAt });
    if (!isDue) return;
    const left = job ? (job.opts.attempts ?? 1) - job.attemptsMade : 0;
    const fields = { queue, job: name, attempt: job?.attemptsMade, attemptsLeft: left };
    this.logger.error({ ...fields, ...(failures > 1 && { failures }), err: error }, 'a job failed');
  }

  /** @param steps none: another run of the job was under way */
  completed(name: string, steps: number): void {
    if (steps === 0) return;
    this.outages.Redis.worked();
    const dependency = this.waiting.get(name);
    if (dependency && this.outages[dependency].worked())
      for (const [other, its] of this.waiting) if (its === dependency) this.waiting.delete(other);
    const before = this.failing.get(name);
    if (before) this.logger.info({ job: name, failures: before.failures }, 'a job that failed works again');
    this.failing.delete(name);
  }

  /** The worker that had it was killed, or took it while it stopped: nothing of it is lost. */
  stalled(queue: string, id: string): void {
    this.metrics.stalled.inc({ queue });
    this.logger.info({ queue, id }, 'a job stalled: its worker stopped or died; another worker takes it');
  }

  /** Of a worker's connection to Redis; they can fail many times a second. */
  error(queue: string, error: Error): void {
    this.outages.Redis.failed(error.message, { queue });
  }
}

function dependencyOf(error: Error): Dependency | undefined {
  if (isUnavailable(error)) return 'the token-service';
  if (isPostgresUnavailable(error)) return 'PostgreSQL';
  if (/^Connection is closed|Stream isn't writeable|MaxRetriesPerRequest/.test(`${error.message} ${error.name}`))
    return 'Redis';
  return undefined;
}

/** Injection token. */
export const WORKER_EVENTS = Symbol('WorkerEvents');
