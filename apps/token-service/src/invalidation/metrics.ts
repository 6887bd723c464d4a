import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import type { Confirmations } from './confirm.js';
import type { Leases } from './leases.js';
import type { WatchHub } from './watch.hub.js';

/** Metrics of confirmations and leases. */
export function registerMetrics(registry: Registry, confirmations: Confirmations, leases: Leases): void {
  const registers = [registry];
  const seconds = new Histogram({
    name: 'latchkey_confirmation_seconds',
    help: 'Time from the commit of a change that reduces rights until no verifier can return a result from before it',
    buckets: [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 10, 15, 30],
    registers,
  });
  confirmations.onEffective = (elapsedMs) => seconds.observe(elapsedMs / 1_000);
  new Counter({
    name: 'latchkey_confirmations_by_total',
    help: 'Verifiers that confirmed an invalidation, by how (ack, cursor, released or lease) and by caller',
    labelNames: ['by', 'caller'],
    registers,
    collect() {
      this.reset();
      for (const [caller, counts] of Object.entries(confirmations.by))
        for (const [by, count] of Object.entries(counts)) this.inc({ by, caller }, count);
    },
  });
  new Counter({
    name: 'latchkey_acknowledgements_dropped_total',
    help: 'Acknowledgements that confirmed nothing, by reason; not_awaited includes late ones',
    labelNames: ['reason'],
    registers,
    collect() {
      this.reset();
      for (const [reason, count] of Object.entries(confirmations.acknowledgementsDropped)) this.inc({ reason }, count);
    },
  });
  new Counter({
    name: 'latchkey_confirmation_events_total',
    help: 'Events of confirmations since the start',
    labelNames: ['event'],
    registers,
    collect() {
      this.reset();
      for (const [event, count] of Object.entries(confirmations.counters)) this.inc({ event }, count);
    },
  });
  new Gauge({
    name: 'latchkey_confirmations_pending',
    help: 'Confirmations that still wait for a verifier',
    registers,
    collect() {
      this.set(confirmations.pending);
    },
  });
  new Counter({
    name: 'latchkey_lease_events_total',
    help: 'Leases renewed, released, and deleted as dead by this process',
    labelNames: ['event'],
    registers,
    collect() {
      this.reset();
      for (const [event, count] of Object.entries(leases.counters)) this.inc({ event }, count);
    },
  });
  new Counter({
    name: 'latchkey_leases_refused_total',
    help: 'Renewals refused, by reason and by caller',
    labelNames: ['reason', 'caller'],
    registers,
    collect() {
      this.reset();
      for (const [caller, counts] of Object.entries(leases.refused))
        for (const [reason, count] of Object.entries(counts)) this.inc({ reason, caller }, count);
    },
  });
  new Gauge({
    name: 'latchkey_leases',
    help: 'Leases at the last scan, by caller',
    labelNames: ['caller'],
    registers,
    collect() {
      for (const [caller, count] of Object.entries(leases.seen)) this.set({ caller }, count);
    },
  });
}

/** Metrics of streams. */
export function registerWatchMetrics(registry: Registry, hub: WatchHub): void {
  const registers = [registry];
  new Gauge({
    name: 'latchkey_watch_streams',
    help: 'Streams of verifiers that are open at this replica',
    registers,
    collect() {
      this.set(hub.open);
    },
  });
  new Counter({
    name: 'latchkey_watch_events_total',
    help: 'Events of streams, of messages to them and of their acknowledgements since the start',
    labelNames: ['event'],
    registers,
    collect() {
      this.reset();
      for (const [event, count] of Object.entries(hub.counters)) this.inc({ event }, count);
    },
  });
}
