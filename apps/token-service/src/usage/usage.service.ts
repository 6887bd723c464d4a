import { type DenialLine, type DenialReason, FIRST_PARTY_CALLER, signUsageBatch, usageKey } from '@latchkey/contracts';
import { type Clock, type Logger, newId, usageStream } from '@latchkey/runtime';
import { UsageReporter, usageText } from '@latchkey/verifier';
import { Inject, Injectable, type OnApplicationShutdown, type OnModuleInit } from '@nestjs/common';
import type { Redis } from 'ioredis';
import { Counter, type Registry } from 'prom-client';
import { CLOCK, CONFIG, LOGGER, type TokenServiceConfig } from '../config.js';
import { InjectRedis } from '../redis/index.js';

type Outcome =
  | { allowed: true; principal: { tokenId: string } }
  | { allowed: false; reason: DenialReason; tokenId?: string };

export interface Where {
  /** A route of this service's own API, or as named by the caller. */
  route: string;
  ip?: string | null | undefined;
  userAgent?: string | null | undefined;
}

/** The name under which the management API's own verifications are counted. */
export const MANAGEMENT_ROUTE = 'management';

const STOP_TIMEOUT_MS = 1_000;

/** Counts the verifications of this service's own APIs, and reports them to jobs as verifiers do. */
@Injectable()
export class UsageService implements OnModuleInit, OnApplicationShutdown {
  readonly #reporter: UsageReporter;

  constructor(
    @Inject(CONFIG) config: TokenServiceConfig,
    @Inject(LOGGER) private readonly logger: Logger,
    @Inject(CLOCK) clock: Clock,
    @InjectRedis('usage') redis: Redis,
  ) {
    const verifier = newId();
    const key = usageKey(Buffer.from(config.USAGE_SECRET[0]), { verifierId: verifier, caller: FIRST_PARTY_CALLER });
    this.#reporter = new UsageReporter({
      sign: (batch) => signUsageBatch(key, FIRST_PARTY_CALLER, { verifier, ...batch }),
      sink: usageStream(redis),
      clock,
      onFailure: ({ message }, sequence) =>
        logger.debug({ reason: message, sequence }, 'sending a usage batch failed, retrying'),
    });
  }

  onModuleInit(): void {
    this.#reporter.start();
  }

  async onApplicationShutdown(): Promise<void> {
    if (!(await this.#reporter.stop(STOP_TIMEOUT_MS)))
      this.logger.error('usage since the last batch is lost: Redis did not accept it before the stop');
  }

  registerMetrics(registry: Registry): void {
    const reporter = this.#reporter;
    new Counter({
      name: 'latchkey_usage_events_total',
      help: 'Usage batches sent and failed; verdicts and denials dropped at a limit',
      labelNames: ['event'],
      registers: [registry],
      collect() {
        this.reset();
        this.inc({ event: 'batches_sent' }, reporter.batchesSent);
        this.inc({ event: 'batches_failed' }, reporter.batchesFailed);
        this.inc({ event: 'verdicts_lost' }, reporter.lost);
        this.inc({ event: 'denials_dropped' }, reporter.denialsDropped);
      },
    });
  }

  /** Counts one verification of a known token; others are not counted. */
  count(outcome: Outcome, { route, ip, userAgent }: Where): void {
    const tokenId = outcome.allowed ? outcome.principal.tokenId : outcome.tokenId;
    if (tokenId === undefined) return;
    const status = outcome.allowed ? 'allowed' : outcome.reason;
    this.#reporter.count(tokenId, usageText('route', route), status, usageText('ip', ip ?? ''), userAgent ?? '');
  }

  /** Reports a denial, so that it can be looked up by its requestId. */
  deny(denial: Omit<DenialLine, 'atMs'>): void {
    this.#reporter.deny(denial);
  }
}
