import cluster from 'node:cluster';
import { createLogger, runService } from '@latchkey/runtime';
import { gatewayConfig } from './config.js';
import { Processes } from './processes/index.js';

const logger = createLogger('gateway', process.env['LOG_LEVEL'] || 'info');

await runService(logger, async () => {
  // Loaded only where they serve: the primary stays small.
  if (cluster.isWorker) return (await import('./worker.js')).startWorker(logger);
  const config = gatewayConfig(process.env, (text) => logger.warn(text));
  if (config.GATEWAY_PROCESSES > 1) {
    const processes = new Processes(
      {
        count: config.GATEWAY_PROCESSES,
        routesFile: config.GATEWAY_CONFIG,
        authzPort: config.AUTHZ_PORT,
        opsHost: config.OPS_HOST || config.HOST,
      },
      logger,
    );
    await processes.start();
    process.on('SIGHUP', () => void processes.reload());
    process.on('SIGUSR2', () => void processes.replace());
    return () => processes.stop();
  }
  const gateway = await (await import('./start.js')).startGateway(config, logger);
  process.on('SIGHUP', () => gateway.reload());
  process.on('SIGUSR2', () =>
    logger.warn('SIGUSR2 is ignored: GATEWAY_PROCESSES is 1, so there is nothing to take over'),
  );
  return () => gateway.stop();
});
