import { Counter, Gauge, Histogram, type Registry } from 'prom-client';

/** Metrics of this service. Gauges of the queues and of PostgreSQL are read at each scrape: see `watch.ts`. */
export class JobMetrics {
  private readonly runs: Histogram;
  private readonly rows: Counter;
  readonly stalled: Counter;
  readonly usageBatches: Counter;
  readonly denialsDropped: Counter;
  readonly thirdPartyLinesDropped: Counter;
  readonly notices: Counter;
  readonly siemBatches: Counter;
  readonly canaryRuns: Counter;
  readonly staleAccepts: Counter;
  readonly canarySeconds: Histogram;

  constructor(readonly registry: Registry) {
    const registers = [registry];
    this.runs = new Histogram({
      name: 'latchkey_job_run_seconds',
      help: 'Run times of jobs by outcome; its count is the number of runs',
      labelNames: ['job', 'queue', 'outcome'],
      buckets: [0.005, 0.02, 0.1, 0.5, 2, 10, 30],
      registers,
    });
    const counter = (name: string, help: string, labelNames: string[]) =>
      new Counter({ name, help, labelNames, registers });
    this.rows = counter('latchkey_job_rows_total', 'Rows that runs of a job have processed', ['job']);
    this.stalled = counter('latchkey_job_stalled_total', 'Stalled jobs: their worker died, and another one took them', [
      'queue',
    ]);
    this.usageBatches = counter(
      'latchkey_usage_batches_total',
      'Usage batches by outcome; malformed and not_authentic ones are dropped',
      ['outcome'],
    );
    this.thirdPartyLinesDropped = counter(
      'latchkey_usage_lines_dropped_total',
      'Dropped lines and denials of third parties: they did not look these tokens up',
      [],
    );
    this.denialsDropped = counter('latchkey_denials_dropped_total', 'Denials that verifiers dropped', []);
    this.notices = counter('latchkey_notices_total', 'Deliveries of notices by outcome', ['channel', 'outcome']);
    this.siemBatches = counter('latchkey_siem_batches_total', 'Batches of audit events to the SIEM by outcome', [
      'outcome',
    ]);
    this.canaryRuns = counter('latchkey_canary_runs_total', 'Runs of the canary by outcome', ['outcome']);
    this.staleAccepts = counter(
      'latchkey_revocation_stale_accepts_total',
      'Revoked tokens of the canary that a gateway accepted after the revocation had returned: alert unless 0',
      [],
    );
    this.canarySeconds = new Histogram({
      name: 'latchkey_revocation_canary_seconds',
      help: "From the canary's request to revoke until it was effective everywhere",
      buckets: [0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 10, 15, 30],
      registers,
    });
  }

  ran(job: { name: string; queue: string }, outcome: string, seconds: number, rows: number): void {
    this.runs.observe({ job: job.name, queue: job.queue, outcome }, seconds);
    this.rows.inc({ job: job.name }, rows);
  }

  /** A gauge that is read at each scrape; without a value when reading fails. */
  gauge(name: string, help: string, labelNames: string[], read: (gauge: Gauge) => Promise<void>): void {
    new Gauge({
      name,
      help,
      labelNames,
      registers: [this.registry],
      async collect() {
        this.reset();
        await read(this);
      },
    });
  }
}
