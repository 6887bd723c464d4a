import { AggregatorRegistry, type MetricObjectWithValues, type MetricValue } from 'prom-client';

/** The metrics of one process. */
export type ProcessMetrics = readonly MetricObjectWithValues<MetricValue<string>>[];

const COUNTS: readonly unknown[] = ['counter', 'histogram'];
/** Of a lease the least counts: a process that holds none must be seen. */
const LEAST = new Set<unknown>(['leaseHeld', 'leaseLeftMs']);

/** What remains of a process that has ended: a sum of counters must not fall, or it would be read as a restart. */
export const countsOf = (metrics: ProcessMetrics): ProcessMetrics =>
  metrics.filter(({ type }) => COUNTS.includes(type));

/** The metrics of several processes as those of one, in which the first process with a metric says how it is added up. */
export function addUp(processes: readonly ProcessMetrics[]): { sums: ProcessMetrics; text: () => Promise<string> } {
  const registry = AggregatorRegistry.aggregate(processes as never[]);
  const sums = registry.getMetricsAsArray() as unknown as ProcessMetrics;
  for (const sum of verifierValues(sums)) {
    const { what } = sum.labels;
    if (!LEAST.has(what)) continue;
    const values = verifierValues(processes.flat()).filter(({ labels }) => labels['what'] === what);
    sum.value = Math.min(...values.map(({ value }) => value));
  }
  return { sums, text: () => registry.metrics() };
}

const verifierValues = (metrics: ProcessMetrics) =>
  metrics.filter(({ name }) => name === 'latchkey_verifier').flatMap(({ values }) => values);
