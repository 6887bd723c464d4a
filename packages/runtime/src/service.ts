import type { Logger } from 'pino';
import { ConfigError } from './config.js';

/** Timeout of an orderly stop; the process exits after it. */
export const STOP_TIMEOUT_MS = 15_000;

/**
 * Runs a service: starts it, logs one line and exits when that fails, stops it in order on SIGTERM and SIGINT, and logs
 * and exits on an unhandled error.
 * @param start returns the function that stops what it started
 */
export async function runService(logger: Logger, start: () => Promise<() => Promise<void>>): Promise<void> {
  const fatal = (error: unknown, message: string): never => {
    logger.fatal(error ? { err: error } : {}, message);
    logger.flush();
    process.exit(1);
  };
  process.on('uncaughtException', (error) => fatal(error, 'uncaught exception: exiting'));
  process.on('unhandledRejection', (error) => fatal(error, 'unhandled rejection: exiting'));

  let stopping = false;
  let stop: (() => Promise<void>) | undefined;
  const onSignal = (signal: NodeJS.Signals) => {
    if (stopping) return;
    stopping = true;
    logger.debug({ signal }, 'stopping');
    setTimeout(
      () => fatal(undefined, `the stop timed out after ${STOP_TIMEOUT_MS} ms: exiting`),
      STOP_TIMEOUT_MS,
    ).unref();
    Promise.resolve(stop?.()).then(
      () => process.exit(0),
      (error) => fatal(error, 'the stop failed'),
    );
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  try {
    stop = await start();
  } catch (error) {
    if (error instanceof ConfigError) fatal(undefined, error.message);
    fatal(error, `cannot start: ${(error as Error).message}`);
  }
}
