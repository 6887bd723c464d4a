import { createLogger, LiveSettings, runService } from '@latchkey/runtime';
import { jobsConfig, live, settings } from './config.js';
import { startJobs } from './start.js';

const logger = createLogger('jobs', process.env['LOG_LEVEL']);
await runService(logger, async () => {
  const given = new LiveSettings({ env: process.env, settings, load: jobsConfig, live, logger });
  logger.level = given.config.LOG_LEVEL;
  return (await startJobs(given.config, logger, given)).stop;
});
