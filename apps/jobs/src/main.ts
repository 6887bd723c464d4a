import { createLogger, LiveSettings, runService } from '@latchkey/runtime';
import { jobsConfig, live, settings } from './config.js';
import { startJobs } from './start.js';

const logger = createLogger('jobs', process.env['LOG_LEVEL']);
await runService(logger, async () => {
  let isStarting = true;
  const load = (env: NodeJS.ProcessEnv) => jobsConfig(env, (text) => isStarting && logger.warn(text));
  const given = new LiveSettings({ env: process.env, settings, load, live, logger });
  isStarting = false;
  logger.level = given.config.LOG_LEVEL;
  return (await startJobs(given.config, logger, given)).stop;
});
