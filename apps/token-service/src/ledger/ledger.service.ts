import type { Clock, Logger } from '@latchkey/runtime';
import { type BeforeApplicationShutdown, Inject, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { Counter, Gauge, type Registry } from 'prom-client';
import { CLOCK, CONFIG, LOGGER, type TokenServiceConfig } from '../config.js';
import { LedgerFollower } from './follower.js';
import { PostgresLedgerStore } from './postgres-store.js';
import { LedgerThread } from './thread.js';

/**
 * The ledger of this process: what takes rights away is also written outside the database, so that a restored backup cannot
 * undo it. A change is not answered before its own entries are written, unless the disk fails.
 */
@Injectable()
export class LedgerService extends LedgerFollower implements BeforeApplicationShutdown, OnApplicationShutdown {
  constructor(
    store: PostgresLedgerStore,
    @Inject(CONFIG) config: TokenServiceConfig,
    @Inject(LOGGER) logger: Logger,
    @Inject(CLOCK) clock: Clock,
  ) {
    const { LEDGER_DIR: dir, LEDGER_KEY: secret } = config;
    super({
      store,
      place: dir !== undefined && secret !== undefined ? { dir, secret } : undefined,
      thread: new LedgerThread(clock),
      retention: { ledgerDays: config.LEDGER_RETENTION_DAYS, auditMonths: config.AUDIT_RETENTION_MONTHS },
      logger,
      clock,
    });
  }

  /** @throws Error saying why what is revoked now is not written outside the database, though that is configured */
  mustBeWritten(): void {
    const { reason } = this.state;
    if (reason !== null) throw new Error(`revocations are not written to the ledger: ${reason}`);
  }

  beforeApplicationShutdown(): void {
    this.pause();
  }

  onApplicationShutdown(): Promise<void> {
    return this.stop();
  }

  registerMetrics(registry: Registry): void {
    const { isOn } = this;
    const counters = () => this.counters;
    const state = () => this.state.state;
    new Gauge({
      name: 'latchkey_ledger_written',
      help: '1: revocations are also written outside the database; 0: writing fails; -1: no ledger is configured',
      registers: [registry],
      collect() {
        this.set(isOn ? Number(state() === 'written') : -1);
      },
    });
    new Counter({
      name: 'latchkey_ledger_entries_total',
      help: 'Entries written to the ledger (written), and attempts that failed (failed)',
      labelNames: ['outcome'],
      registers: [registry],
      collect() {
        this.reset();
        this.inc({ outcome: 'written' }, counters().entries);
        this.inc({ outcome: 'failed' }, counters().failures);
      },
    });
  }
}
