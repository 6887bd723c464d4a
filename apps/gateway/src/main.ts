import { createLogger, runService } from '@latchkey/runtime';
import { gatewayConfig } from './config.js';
import { startGateway } from './start.js';

const logger = createLogger('gateway', process.env['LOG_LEVEL'] || 'info');

await runService(logger, async () => {
  const gateway = await startGateway(
    gatewayConfig(process.env, (text) => logger.warn(text)),
    logger,
  );
  process.on('SIGHUP', () => gateway.reload());
  return () => gateway.stop();
});
