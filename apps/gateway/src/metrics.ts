import type { RateLimits } from '@latchkey/runtime';
import type { UsageReporter, Verifier } from '@latchkey/verifier';
import { Counter, Gauge, type Metric, type Registry } from 'prom-client';
import type { CertificateWatch } from './certificate.js';
import type { UpstreamHealth } from './engine/index.js';
import type { OpenExchanges } from './streams/index.js';

const BUCKETS_S = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

export interface MetricsDeps {
  readonly verifier: Pick<Verifier, 'counters' | 'state'>;
  readonly open: OpenExchanges;
  readonly usage: UsageReporter;
  readonly limits: Pick<RateLimits, 'countedAlone'>;
  readonly upstreams: { readonly health: readonly UpstreamHealth[] };
  /** Of the public port, where it speaks TLS. */
  readonly certificate: Pick<CertificateWatch, 'secondsLeft' | 'fault'> | undefined;
  readonly routes: {
    readonly hash: () => string;
    /** Undefined where the primary watches. */
    readonly watch: { readonly fault: string | undefined } | undefined;
  };
}

/** Also of a primary. */
export const RELOAD_FAILED = {
  name: 'latchkey_gateway_routes_reload_failed',
  help: '1 while what the routes file and the files that it names hold is not in use; the log says why',
};

/** Requests by route and status are counted in plain maps and read at each scrape: labels cost more than a check. */
export class Metrics {
  readonly #requests = new Map<string, Map<number, number>>();
  readonly #seconds = new Durations(
    'latchkey_gateway_request_seconds',
    'From the head of a request to the end of its response',
  );

  constructor(registry: Registry, deps: MetricsDeps) {
    const registers = [registry];
    registry.registerMetric(this.#seconds as unknown as Metric);
    const requests = this.#requests;
    counter('latchkey_gateway_requests_total', ['route', 'status'], function collect() {
      this.reset();
      for (const [route, byStatus] of requests)
        for (const [status, count] of byStatus) this.inc({ route, status }, count);
    });
    counter('latchkey_verifier_verdicts_total', ['outcome'], function collect() {
      this.reset();
      for (const [outcome, count] of Object.entries(deps.verifier.counters.verdicts)) this.inc({ outcome }, count);
    });
    counter('latchkey_verifier_events_total', ['event'], function collect() {
      this.reset();
      for (const [event, count] of Object.entries(deps.verifier.counters))
        if (typeof count === 'number') this.inc({ event }, count);
    });
    counter('latchkey_feed_dropped_total', ['reason'], function collect() {
      this.reset();
      for (const [reason, count] of Object.entries(deps.verifier.counters.messagesDropped)) this.inc({ reason }, count);
    });
    counter('latchkey_usage_events_total', ['event'], function collect() {
      this.reset();
      this.inc({ event: 'batches_sent' }, deps.usage.batchesSent);
      this.inc({ event: 'batches_failed' }, deps.usage.batchesFailed);
      this.inc({ event: 'verdicts_lost' }, deps.usage.lost);
      this.inc({ event: 'denials_dropped' }, deps.usage.denialsDropped);
    });
    counter('latchkey_rate_limit_counted_alone_total', [], function collect() {
      this.reset();
      this.inc(deps.limits.countedAlone);
    });
    gauge('latchkey_verifier', ['what'], function collect() {
      for (const [what, value] of Object.entries(deps.verifier.state())) this.set({ what }, Number(value));
    });
    gauge('latchkey_gateway_open_exchanges', [], function collect() {
      this.set(deps.open.size);
    });
    gauge('latchkey_gateway_upstream_available', ['upstream'], function collect() {
      this.reset();
      const available = new Map<string, boolean>();
      for (const { upstream, isAvailable } of deps.upstreams.health)
        available.set(upstream, isAvailable && available.get(upstream) !== false);
      for (const [upstream, isAvailable] of available) this.set({ upstream }, Number(isAvailable));
    });
    counter('latchkey_gateway_upstream_failures_total', ['upstream'], function collect() {
      this.reset();
      for (const { upstream, counts } of deps.upstreams.health) this.inc({ upstream }, counts.failures);
    });
    counter('latchkey_gateway_upstream_ejections_total', ['upstream'], function collect() {
      this.reset();
      for (const { upstream, counts } of deps.upstreams.health) this.inc({ upstream }, counts.ejections);
    });
    counter('latchkey_gateway_upstream_checks_total', ['upstream', 'outcome'], function collect() {
      this.reset();
      for (const { upstream, counts } of deps.upstreams.health) {
        if (counts.checksPassed + counts.checksFailed === 0) continue;
        this.inc({ upstream, outcome: 'passed' }, counts.checksPassed);
        this.inc({ upstream, outcome: 'failed' }, counts.checksFailed);
      }
    });
    const { hash, watch } = deps.routes;
    gauge(
      'latchkey_gateway_routes_info',
      ['hash'],
      function collect() {
        this.reset();
        this.set({ hash: hash() }, 1);
      },
      'max',
    );
    if (watch) new Gauge({ ...RELOAD_FAILED, registers, collect: collectOf(() => Number(watch.fault !== undefined)) });
    const { certificate } = deps;
    if (certificate) {
      gauge(
        'latchkey_gateway_tls_certificate_expiry_seconds',
        [],
        collectOf(() => certificate.secondsLeft),
        'min',
      );
      const hasFailed = () => (certificate.fault === undefined ? 0 : 1);
      gauge('latchkey_gateway_tls_certificate_reload_failed', [], collectOf(hasFailed), 'max');
    }

    function counter(name: string, labelNames: string[], collect: (this: Counter) => void): void {
      new Counter({ name, help: HELP[name]!, labelNames, registers, collect });
    }
    function gauge(
      name: string,
      labelNames: string[],
      collect: (this: Gauge) => void,
      aggregator: 'sum' | 'min' | 'max' = 'sum',
    ): void {
      new Gauge({ name, help: HELP[name]!, labelNames, registers, collect, aggregator });
    }
  }

  /** @param status 0: the caller disconnected before a response */
  readonly observe = (route: string, status: number, startedAtMs: number): void => {
    let byStatus = this.#requests.get(route);
    if (!byStatus) {
      byStatus = new Map();
      this.#requests.set(route, byStatus);
    }
    byStatus.set(status, (byStatus.get(status) ?? 0) + 1);
    this.#seconds.observe((performance.now() - startedAtMs) / 1000);
  };
}

/** A histogram for prom-client's registry whose observations are cheap: it is summed up at each scrape. */
class Durations {
  readonly #counts = new Float64Array(BUCKETS_S.length + 1);
  #sum = 0;

  constructor(
    readonly name: string,
    readonly help: string,
  ) {}

  observe(seconds: number): void {
    let i = 0;
    while (i < BUCKETS_S.length && seconds > BUCKETS_S[i]!) i++;
    this.#counts[i]!++;
    this.#sum += seconds;
  }

  async get() {
    const { name, help } = this;
    let value = 0;
    const buckets = [...BUCKETS_S, '+Inf'].map((le, i) => {
      value += this.#counts[i]!;
      return { metricName: `${name}_bucket`, labels: { le }, value };
    });
    const sum = { metricName: `${name}_sum`, labels: {}, value: this.#sum };
    const count = { metricName: `${name}_count`, labels: {}, value };
    return { name, help, type: 'histogram', aggregator: 'sum', values: [...buckets, sum, count] };
  }

  async getForPromString() {
    return this.get();
  }

  reset(): void {
    this.#counts.fill(0);
    this.#sum = 0;
  }
}

const collectOf = (value: () => number) =>
  function collect(this: Gauge) {
    this.set(value());
  };

const HELP: Readonly<Record<string, string>> = {
  latchkey_gateway_requests_total: 'Requests at the public port; status 0: the caller disconnected before a response',
  latchkey_verifier_verdicts_total: 'Checks by their outcome',
  latchkey_verifier_events_total: 'Events of the verifier since the start',
  latchkey_feed_dropped_total: 'Messages of the feed that were neither applied nor acknowledged, by reason',
  latchkey_usage_events_total: 'Usage batches sent and failed, verdicts lost, denials dropped',
  latchkey_rate_limit_counted_alone_total: 'Rate-limited uses counted without Redis',
  latchkey_verifier: "The verifier's state now: leaseHeld, leaseLeftMs, entries, misses, fillsInFlight, streams",
  latchkey_gateway_upstream_available: 'Processes that send requests to this one of several upstreams',
  latchkey_gateway_upstream_failures_total: 'Requests that failed before a response, by one of several upstreams',
  latchkey_gateway_upstream_ejections_total: 'Times that one of several upstreams was left out after failures in a row',
  latchkey_gateway_upstream_checks_total: 'Health checks of one of several upstreams, by outcome',
  latchkey_gateway_open_exchanges: 'Requests, streams and WebSockets open now',
  latchkey_gateway_routes_info: 'The routes in use, by the hash of their files: 1; two while processes differ',
  latchkey_gateway_tls_certificate_expiry_seconds:
    'Until the certificate of the public port expires; negative when it has; of several processes the least',
  latchkey_gateway_tls_certificate_reload_failed:
    '1 while the files hold no certificate and key that can be used, or one that has expired; the log says why',
};
