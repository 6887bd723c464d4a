import { createLogger, LiveSettings, runService, systemClock } from '@latchkey/runtime';
import { startTokenService } from './app.js';
import { live, settings, tokenServiceConfig, VERSION } from './config.js';

const logger = createLogger('token-service', process.env['LOG_LEVEL'] || 'info');

await runService(logger, async () => {
  const given = new LiveSettings({ env: process.env, settings, load: tokenServiceConfig, live, logger });
  const service = await startTokenService(given.config, logger, systemClock, given);
  const { apiUrl, rpcAddress, opsUrl } = service;
  logger.info({ version: VERSION, apiUrl, rpcAddress, opsUrl }, 'the token-service is ready');
  return service.stop;
});
