import { createLogger, runService } from '@latchkey/runtime';
import { startTokenService } from './app.js';
import { tokenServiceConfig, VERSION } from './config.js';

const logger = createLogger('token-service', process.env['LOG_LEVEL'] || 'info');

await runService(logger, async () => {
  const config = tokenServiceConfig(process.env, (text) => logger.warn(text));
  const service = await startTokenService(config, logger);
  const { apiUrl, rpcAddress, opsUrl } = service;
  logger.info({ version: VERSION, apiUrl, rpcAddress, opsUrl }, 'the token-service is ready');
  return service.stop;
});
