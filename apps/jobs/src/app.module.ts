import { REDIS } from '@latchkey/contracts';
import { BullModule, getQueueToken } from '@nestjs/bullmq';
import { type DynamicModule, Module } from '@nestjs/common';
import type { ConnectionOptions } from 'bullmq';
import { type JobContext, QUEUES } from './job.js';
import { JobRunner } from './runner.service.js';
import { WORKER_EVENTS, WorkerEvents } from './worker-events.service.js';
import { AuditWorker, NoticesWorker, TokensWorker, UsageWorker } from './workers.js';

export { getQueueToken };

/** BullMQ's queues, and one worker of this process for each. */
@Module({})
export class AppModule {
  static with(context: Omit<JobContext, 'signal'>, connection: ConnectionOptions): DynamicModule {
    return {
      module: AppModule,
      imports: [
        BullModule.forRoot({ connection, prefix: REDIS.queues }),
        BullModule.registerQueue(...QUEUES.map((name) => ({ name }))),
      ],
      providers: [
        { provide: JobRunner, useFactory: () => new JobRunner(context) },
        { provide: WORKER_EVENTS, useFactory: () => new WorkerEvents(context.logger, context.metrics) },
        TokensWorker,
        AuditWorker,
        UsageWorker,
        NoticesWorker,
      ],
    };
  }
}
