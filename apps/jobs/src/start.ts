import 'reflect-metadata';
import type { AddressInfo } from 'node:net';
import {
  CredentialState,
  checkPostgres,
  checkRedis,
  connectingTo,
  createRedis,
  createRegistry,
  firstParty,
  type LiveSettings,
  type Logger,
  maintenanceCaller,
  NestLogger,
  reconnectingTo,
  startOps,
} from '@latchkey/runtime';
import { getQueueToken } from '@nestjs/bullmq';
import { NestFactory } from '@nestjs/core';
import type { Queue } from 'bullmq';
import { Client } from 'pg';
import { DataSource } from 'typeorm';
import { AppModule } from './app.module.js';
import { checkTogether, type JobsConfig, VERSION } from './config.js';
import { QUEUES } from './job.js';
import { BOARD_PATH, boardHandler, JobMetrics, watch } from './ops/index.js';
import { JobRunner } from './runner.service.js';
import { SCHEDULE } from './schedule.js';
import { Scheduler } from './scheduler.service.js';

export interface RunningJobs {
  /** The bound ops port. */
  opsPort: number;
  /** Takes no more jobs, finishes the current steps, and closes everything. */
  stop(): Promise<void>;
}

/** Most connections to PostgreSQL of one worker process. */
const DATABASE_POOL_SIZE = 12;
const CONNECT_TIMEOUT_MS = 5_000;

/**
 * Starts a worker: the queues' workers, the schedule, and the ops port.
 * @param given where `config` comes from, to be watched
 * @throws StartError when PostgreSQL is unavailable or has another schema, or Redis is a cluster or a Sentinel
 */
export async function startJobs(
  config: JobsConfig,
  logger: Logger,
  given?: LiveSettings<JobsConfig>,
): Promise<RunningJobs> {
  checkTogether(config);
  await checkPostgres({
    connection: () =>
      new Client({
        connectionString: config.DATABASE_URL,
        connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
        application_name: 'latchkey-jobs start',
      }),
    version: VERSION,
    poolSize: DATABASE_POOL_SIZE,
    pooler: 'warned',
    logger,
  });
  const redis = createRedis(() => config.REDIS_URL, 'latchkey-jobs', logger, { enableOfflineQueue: true });
  await checkRedis(redis, logger, 'noeviction').catch((error: Error) => {
    redis.disconnect();
    throw error;
  });
  const database = new DataSource({
    type: 'postgres',
    url: config.DATABASE_URL,
    poolSize: DATABASE_POOL_SIZE,
    connectTimeoutMS: CONNECT_TIMEOUT_MS,
    applicationName: 'latchkey-jobs',
    installExtensions: false,
    poolErrorHandler: (error: Error) => logger.debug({ reason: error.message }, 'PostgreSQL dropped a connection'),
    extra: {
      statement_timeout: 30_000,
      idle_in_transaction_session_timeout: 30_000,
      keepAlive: true,
      Client: connectingTo(Client, () => config.DATABASE_URL),
    },
  });
  await database.initialize();
  const credential = new CredentialState('JOBS_RPC_SECRET', logger);
  const maintenance = maintenanceCaller({
    address: config.RPC_ADDRESS,
    authorization: () => firstParty(config.JOBS_RPC_SECRET[0]),
    onAuthorization: (isAccepted) => credential.note(isAccepted),
    ...(config.RPC_CA_FILE && { caFile: config.RPC_CA_FILE }),
  });
  const metrics = new JobMetrics(createRegistry('jobs', VERSION));
  const connection = {
    url: config.REDIS_URL,
    maxRetriesPerRequest: null,
    connectionName: 'latchkey-jobs-queues',
    retryStrategy: reconnectingTo(
      () => config.REDIS_URL,
      (attempt) => Math.min(1_000 * attempt, 20_000),
    ),
  };
  const app = await NestFactory.createApplicationContext(
    AppModule.with({ config, database, redis, maintenance, metrics, logger }, connection),
    { logger: new NestLogger(logger), abortOnError: false },
  );
  const queues = new Map(QUEUES.map((name) => [name as string, app.get<Queue>(getQueueToken(name))]));
  for (const queue of queues.values())
    queue.on('error', (error) => logger.debug({ queue: queue.name, reason: error.message }, 'queue error'));
  watch(metrics, [...queues.values()], redis, database, logger);
  const board = await boardHandler([...queues.values()], config.BOARD_PASSWORD);
  const scheduler = new Scheduler(queues, SCHEDULE, logger);
  scheduler.start();
  given?.registerMetrics(metrics.registry);
  const ops = await startOps({
    host: config.HOST,
    port: config.OPS_PORT,
    version: VERSION,
    registry: metrics.registry,
    checks: {
      postgres: async () => void (await database.query('SELECT 1')),
      redis: async () => void (await redis.ping()),
      'token-service': () => credential.mustBeAccepted(),
    },
    ...(given && {
      warnings: { settings: () => given.mustBeInUse() },
      reload: async () => {
        await given.reload();
        return { pending: given.pending };
      },
    }),
    routes: { [BOARD_PATH]: board, [`${BOARD_PATH}/`]: board },
  });
  const { port: opsPort } = ops.address() as AddressInfo;
  given?.start();
  logger.info({ version: VERSION, opsPort, jobs: SCHEDULE.length }, 'jobs is ready');
  return {
    opsPort,
    stop: async () => {
      given?.stop();
      await scheduler.stop();
      app.get(JobRunner).stop();
      // Workers stop taking jobs, wait for the current steps, and close; queues close after them.
      await app.close();
      maintenance.close();
      redis.disconnect();
      await database.destroy();
      ops.closeAllConnections();
      await new Promise((resolve) => ops.close(resolve));
    },
  };
}
