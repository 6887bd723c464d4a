import cluster from 'node:cluster';
import type { Logger, StartedService } from '@latchkey/runtime';
import { SILENT, watchedConfig } from './config.js';
import { Channel, type Load, type ProcessStart } from './processes/index.js';
import type { Reloaded, RoutesSource } from './routes/index.js';
import { type Gateway, startGateway } from './start.js';
import { stopLimits } from './stop.js';

/** Longest wait for the metrics of all processes. */
const METRICS_MS = 5_000;
/** Longest wait for the routes to be used by all processes: longer than the primary waits for one. */
const RELOAD_MS = 10_000;
const FAULT_MS = 1_000;

/** A whole gateway as one of several processes, which the primary starts, reloads and stops. */
export async function startWorker(logger: Logger): Promise<StartedService> {
  const worker = cluster.worker!;
  worker.on('disconnect', () => {
    // Else node exits at once, and what is open breaks off.
    worker.exitedAfterDisconnect = true;
    // The primary is gone: the next one needs the ports.
    void started.promise.then((gateway) => gateway.stop({ atOnce: true }));
    process.kill(process.pid, 'SIGTERM');
  });
  const told = Promise.withResolvers<ProcessStart>();
  const started = Promise.withResolvers<Gateway>();
  let lastUtilization = performance.eventLoopUtilization();
  const channel = new Channel(process, {
    start: async (start: ProcessStart) => {
      told.resolve(start);
      const { url, opsPort, authzPort, routes, routesHash } = await started.promise;
      return { url, opsPort, authzPort, routes, routesHash };
    },
    routes: async (source: RoutesSource) => (await started.promise).useRoutes(source),
    load: async () => {
      const connections = (await started.promise).openConnections();
      const now = performance.eventLoopUtilization();
      const { utilization } = performance.eventLoopUtilization(now, lastUtilization);
      lastUtilization = now;
      return { connections, utilization } satisfies Load;
    },
    settings: async () => (await started.promise).reloadSettings(),
    surplus: async (connections: number) => (await started.promise).closeSurplus(connections),
    collect: async () => (await started.promise).metrics(),
    retire: async () => {
      const gateway = await started.promise;
      await gateway.stop({ othersAccept: true });
      return gateway.metrics();
    },
  });
  const start = await told.promise;
  const given = watchedConfig(start.n === 1 ? logger : SILENT, false);
  const { config } = given;
  const as = {
    ...start,
    metrics: () => channel.ask<string>('metrics', undefined, METRICS_MS),
    reload: () => channel.ask<Reloaded>('reload', undefined, RELOAD_MS),
    routesFault: () => channel.ask<string | undefined>('fault', undefined, FAULT_MS),
  };
  const gateway = await startGateway(config, logger, as, given);
  started.resolve(gateway);
  return { stop: () => gateway.stop(), stopTimeoutMs: stopLimits(config.SHUTDOWN_DELAY_MS).exitMs };
}
