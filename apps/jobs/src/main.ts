import { createLogger, loadConfig, runService } from '@latchkey/runtime';
import { settings } from './config.js';
import { startJobs } from './start.js';

const logger = createLogger('jobs', process.env['LOG_LEVEL']);
await runService(logger, async () => {
  const config = loadConfig(settings);
  logger.level = config.LOG_LEVEL;
  return (await startJobs(config, logger)).stop;
});
