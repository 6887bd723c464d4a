import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import {
  FIRST_PARTY_CALLER,
  REDIS,
  signUsageBatch,
  type UsageBatch,
  type UsageBatchEvent,
  type UsageLine,
  usageFields,
  usageKey,
  usageTicket,
} from '@latchkey/contracts';
import { createLogger, createRedis, createRegistry, maintenanceCaller, newId } from '@latchkey/runtime';
import { type TestDatabase, type TestRedis, testCredentials, testDatabase, testRedis } from '@latchkey/testing';
import type { Redis } from 'ioredis';
import { DataSource } from 'typeorm';
import { type JobsConfig, jobsConfig } from '../src/config.js';
import type { Job, JobContext } from '../src/job.js';
import { JobMetrics } from '../src/ops/metrics.service.js';

const tokenService = path.join(import.meta.dirname, '../../token-service');

/** A database for this test, with the newest schema. */
export function migratedDatabase(): Promise<TestDatabase> {
  const dir = path.join(tokenService, 'dist/migrations');
  const files = readdirSync(dir).filter((file) => file.endsWith('.js'));
  return testDatabase({
    fingerprint: `jobs\n${files.map((file) => readFileSync(path.join(dir, file), 'utf8')).join('\n')}`,
    migrate: async (url) => {
      await promisify(execFile)(process.execPath, [path.join(tokenService, 'dist/migrate.js')], {
        env: { PATH: process.env['PATH'], DATABASE_URL: url },
      });
    },
  });
}

export function asJobs(url: string): string {
  const under = new URL(url);
  under.searchParams.set('options', '-c role=latchkey_jobs');
  return under.href;
}

/** A database, a Redis, and a job's context; jobs run with the rights of their role. */
export class World implements AsyncDisposable {
  readonly usageSecret = randomBytes(32).toString('hex');
  readonly credentials = testCredentials();
  readonly encryptionSecret = randomBytes(32).toString('hex');
  private context: Promise<JobContext> | undefined;

  private constructor(
    readonly database: TestDatabase,
    readonly redis: TestRedis,
  ) {}

  static async start(): Promise<World> {
    return new World(await migratedDatabase(), await testRedis());
  }

  /** The environment of a jobs process. */
  environment(more: Record<string, string> = {}): Record<string, string> {
    return {
      DATABASE_URL: asJobs(this.database.url),
      REDIS_URL: this.redis.url,
      ...this.credentials.jobs,
      JOBS_SEALING_KEY: this.encryptionSecret,
      USAGE_SECRET: this.usageSecret,
      RPC_ADDRESS: '127.0.0.1:1',
      OPS_PORT: '0',
      LOG_LEVEL: 'warn',
      ...more,
    };
  }

  config(more: Record<string, string> = {}): JobsConfig {
    return jobsConfig(this.environment(more));
  }

  async contextWith(more: Record<string, string> = {}): Promise<JobContext> {
    this.context ??= this.connect();
    return { ...(await this.context), config: this.config(more) };
  }

  private async connect(): Promise<JobContext> {
    const config = this.config();
    const logger = createLogger('jobs-test', 'silent');
    const database = new DataSource({
      type: 'postgres',
      url: config.DATABASE_URL,
      poolSize: 8,
      installExtensions: false,
    });
    await database.initialize();
    return {
      config,
      database,
      redis: createRedis(config.REDIS_URL, 'test', logger, { enableOfflineQueue: true }),
      maintenance: maintenanceCaller({ address: config.RPC_ADDRESS, authorization: 'none' }),
      metrics: new JobMetrics(createRegistry('jobs', '0.0.0')),
      logger,
      signal: new AbortController().signal,
    };
  }

  async stream(): Promise<Redis> {
    return (await this.contextWith()).redis;
  }

  /** Runs steps of a job until nothing is due. */
  async run(job: Job, more: Record<string, string> = {}): Promise<number> {
    const context = await this.contextWith(more);
    for (let done = 0; ; ) {
      const report = await job.step(context);
      done += report.done;
      if (!report.more) return done;
    }
  }

  async person(more: { disabled?: boolean; role?: string } = {}): Promise<{ id: string; email: string; name: string }> {
    const id = newId();
    const person = { id, email: `${id}@example.test`, name: `Person ${id.slice(-4)}` };
    await this.database.query(
      'INSERT INTO users (id, email, name, role, created_at, disabled_at) VALUES ($1, $2, $3, $4, now(), $5)',
      [id, person.email, person.name, more.role ?? 'member', more.disabled ? new Date() : null],
    );
    return person;
  }

  async project(owners: readonly { id: string }[]): Promise<string> {
    const id = newId();
    await this.database.query("INSERT INTO projects (id, name, created_at) VALUES ($1, 'Project', now())", [id]);
    for (const owner of owners)
      await this.database.query(
        "INSERT INTO members (project_id, user_id, role, created_at) VALUES ($1, $2, 'owner', now())",
        [id, owner.id],
      );
    return id;
  }

  /** @param owner a person or a project's id */
  async token(
    owner: { id: string } | string,
    more: { name?: string; createdAt?: Date; expiresAt?: Date; revokedAt?: Date; rotatedTo?: string } = {},
  ): Promise<string> {
    const id = newId();
    const project = typeof owner === 'string' ? owner : null;
    await this.database.query(
      `INSERT INTO tokens (id, hash, kind, name, start, owner_user_id, project_id, created_by_type, scopes, created_at,
         expires_at, revoked_at, revocation_reason, rotated_to)
       VALUES ($1, $2, $3, $4, 'lk_pat_test', $5, $6, 'system', '{}', $7, $8, $9, $10, $11)`,
      [
        id,
        randomBytes(32),
        project ? 'prj' : 'pat',
        more.name ?? 'deploy',
        typeof owner === 'string' ? null : owner.id,
        project,
        more.createdAt ?? new Date(),
        more.expiresAt ?? null,
        more.revokedAt ?? null,
        more.revokedAt ? 'superseded' : null,
        more.rotatedTo ?? null,
      ],
    );
    return id;
  }

  /** Signed like the verifier of this caller does. */
  signed(batch: UsageBatch, caller = FIRST_PARTY_CALLER): UsageBatchEvent {
    const key = usageKey(Buffer.from(this.usageSecret), { verifierId: batch.verifier, caller });
    return signUsageBatch(key, caller, batch);
  }

  /** The ticket that a caller gets from the token-service by looking the token up. */
  ticket(caller: string, tokenId: string): { tokenId: string; ticket: string } {
    const ticket = usageTicket(Buffer.from(this.usageSecret), { caller, tokenId });
    return { tokenId, ticket: ticket.toString('base64url') };
  }

  /** Sends a batch as a verifier does. */
  async send(event: UsageBatchEvent): Promise<void> {
    await this.sendFields(usageFields(event));
  }

  /** Sends any fields. */
  async sendFields(fields: readonly string[]): Promise<void> {
    await (await this.stream()).xadd(REDIS.usage, '*', ...fields);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const context = await this.context;
    context?.redis.disconnect();
    context?.maintenance.close();
    await context?.database.destroy();
    await this.redis.close();
    await this.database.close();
  }
}

export function line(tokenId: string, more: Partial<UsageLine> = {}): UsageLine {
  const now = Date.now();
  return {
    tokenId,
    hourMs: Math.floor(now / 3_600_000) * 3_600_000,
    route: 'demo',
    status: 'allowed',
    ip: '192.0.2.1',
    userAgent: 'curl/8',
    count: 1,
    firstSeenMs: now - 1_000,
    lastSeenMs: now,
    ...more,
  };
}

export function batch(lines: UsageLine[], more: Partial<UsageBatch> = {}): UsageBatch {
  return { verifier: newId(), sequence: 1, lines, denials: [], denialsDropped: 0, ...more };
}
