import { createLogger, runService } from '@latchkey/runtime';
import { jobsConfig } from './config.js';
import { startJobs } from './start.js';

const logger = createLogger('jobs', process.env['LOG_LEVEL']);
await runService(logger, async () => {
  const config = jobsConfig(process.env, (text) => logger.warn(text));
  logger.level = config.LOG_LEVEL;
  return (await startJobs(config, logger)).stop;
});
