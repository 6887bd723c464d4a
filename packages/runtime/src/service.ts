import type { Logger } from 'pino';
import { ConfigError } from './config.js';

/** How long an orderly stop may take before the process leaves anyway. */
export const STOP_TIMEOUT_MS = 15_000;

/**
 * Runs a service: starts it, says in one line what went wrong when it cannot start, stops it in order on SIGTERM and
 * SIGINT, and leaves with a log line on a fault that nobody handled.
 * @param start answers the function that stops what it started
 */
export async function runService(logger: Logger, start: () => Promise<() => Promise<void>>): Promise<void> {
  const fatal = (error: unknown, message: string): never => {
    logger.fatal(error ? { err: error } : {}, message);
    logger.flush();
    process.exit(1);
  };
  process.on('uncaughtException', (error) => fatal(error, 'a fault that nothing handled: leaving'));
  process.on('unhandledRejection', (error) => fatal(error, 'a rejection that nothing handled: leaving'));

  let stopping = false;
  let stop: (() => Promise<void>) | undefined;
  const onSignal = (signal: NodeJS.Signals) => {
    if (stopping) return;
    stopping = true;
    logger.debug({ signal }, 'stopping');
    setTimeout(() => fatal(undefined, `not stopped within ${STOP_TIMEOUT_MS} ms: leaving`), STOP_TIMEOUT_MS).unref();
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
