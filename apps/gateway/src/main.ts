import cluster from 'node:cluster';
import { createLogger, runService } from '@latchkey/runtime';
import { VERSION, watchedConfig } from './config.js';
import { Processes } from './processes/index.js';
import { stopLimits } from './stop.js';

const logger = createLogger('gateway', process.env['LOG_LEVEL'] || 'info');

await runService(logger, async () => {
  // Loaded only where they serve: the primary stays small.
  if (cluster.isWorker) {
    // They are for the primary, which has the same terminal.
    for (const signal of ['SIGHUP', 'SIGUSR2']) process.on(signal, () => undefined);
    return (await import('./worker.js')).startWorker(logger);
  }
  const given = watchedConfig(logger, true);
  const { config } = given;
  const { killedMs: stopMs, exitMs: stopTimeoutMs } = stopLimits(config.SHUTDOWN_DELAY_MS);
  if (config.GATEWAY_PROCESSES > 1) {
    const processes = new Processes(
      {
        version: VERSION,
        count: config.GATEWAY_PROCESSES,
        routesFile: config.GATEWAY_CONFIG,
        authzPort: config.AUTHZ_PORT,
        opsHost: config.OPS_HOST || config.HOST,
        stopMs,
      },
      logger,
    );
    const starting = processes.start();
    onceStarted('SIGHUP', starting, () => processes.reload());
    onceStarted('SIGUSR2', starting, () => processes.replace());
    await starting;
    return { stop: () => processes.stop(), stopTimeoutMs };
  }
  const starting = import('./start.js').then(({ startGateway }) => startGateway(config, logger, undefined, given));
  onceStarted('SIGHUP', starting, (gateway) => gateway.reload());
  onceStarted('SIGUSR2', starting, () =>
    logger.warn('SIGUSR2 is ignored: GATEWAY_PROCESSES is 1, so there is nothing to take over'),
  );
  const gateway = await starting;
  return { stop: () => gateway.stop(), stopTimeoutMs };
});

/** A signal that comes during the start ends nothing: it is obeyed once that is over. A start that fails is told elsewhere. */
function onceStarted<T>(signal: NodeJS.Signals, starting: Promise<T>, obey: (started: T) => unknown): void {
  process.on(signal, () => void starting.then(obey, () => undefined));
}
