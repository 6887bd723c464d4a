import { ConfigError, createLogger, loadConfig, runService } from '@latchkey/runtime';
import { startTokenService } from './app.js';
import { settings } from './config.js';

const logger = createLogger('token-service', process.env['LOG_LEVEL'] || 'info');

await runService(logger, async () => {
  const config = loadConfig(settings);
  if (!config.RPC_TLS_CERT_FILE !== !config.RPC_TLS_KEY_FILE)
    throw new ConfigError(['RPC_TLS_CERT_FILE and RPC_TLS_KEY_FILE: set both, or neither']);
  const service = await startTokenService(config, logger);
  const { apiUrl, rpcAddress, opsUrl } = service;
  logger.info({ apiUrl, rpcAddress, opsUrl }, 'the token-service is ready');
  return service.stop;
});
