import { OnWorkerEvent, Processor, WorkerHost } from '@nestjs/bullmq';
import { Inject } from '@nestjs/common';
import type { Job as QueuedJob } from 'bullmq';
import type { QueueName } from './job.js';
import { JobRunner, type RunReport } from './runner.service.js';
import { SCHEDULE } from './schedule.js';
import { WORKER_EVENTS, type WorkerEvents } from './worker-events.service.js';

/** `stalledInterval`: after this time another worker takes the job of one that died. */
const OPTIONS = { lockDuration: 30_000, stalledInterval: 5_000, maxStalledCount: 100, drainDelay: 2 };

/** Enough for every job of a queue at once, so that none waits for a long run of another. */
const optionsOf = (queue: QueueName) => ({
  ...OPTIONS,
  concurrency: SCHEDULE.filter((job) => job.queue === queue).reduce((sum, { parallel = 1 }) => sum + parallel, 0),
});

abstract class QueueWorker extends WorkerHost {
  constructor(
    @Inject(JobRunner) private readonly runner: JobRunner,
    @Inject(WORKER_EVENTS) private readonly events: WorkerEvents,
  ) {
    super();
  }

  protected abstract readonly queue: QueueName;

  /** Reads nothing of the job but its name. */
  process(job: QueuedJob): Promise<RunReport> {
    return this.runner.run(job.name);
  }

  @OnWorkerEvent('failed')
  onFailed(job: QueuedJob | undefined, error: Error): void {
    this.events.failed(this.queue, job, error);
  }

  @OnWorkerEvent('completed')
  onCompleted(job: QueuedJob, report: RunReport): void {
    this.events.completed(job.name, report.steps);
  }

  @OnWorkerEvent('stalled')
  onStalled(id: string): void {
    this.events.stalled(this.queue, id);
  }

  @OnWorkerEvent('error')
  onError(error: Error): void {
    this.events.error(this.queue, error);
  }
}

@Processor('tokens', optionsOf('tokens'))
export class TokensWorker extends QueueWorker {
  protected readonly queue = 'tokens';
}

@Processor('audit', optionsOf('audit'))
export class AuditWorker extends QueueWorker {
  protected readonly queue = 'audit';
}

@Processor('usage', optionsOf('usage'))
export class UsageWorker extends QueueWorker {
  protected readonly queue = 'usage';
}

@Processor('notices', optionsOf('notices'))
export class NoticesWorker extends QueueWorker {
  protected readonly queue = 'notices';
}
