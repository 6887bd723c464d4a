import type { Logger } from 'pino';
import { ConfigError } from './config.js';

/** Timeout of an orderly stop, where a service names no other; the process exits after it. */
export const STOP_TIMEOUT_MS = 15_000;

/** Why a service does not start, in words that say what to do: it is logged without a stack. */
export class StartError extends Error {
  override name = 'StartError';
}

/** Stops what a service has started. */
export type StopService = () => Promise<void>;

export interface StartedService {
  readonly stop: StopService;
  /** Longest orderly stop. */
  readonly stopTimeoutMs: number;
}

/**
 * Runs a service: starts it, logs one line and exits when that fails, stops it in order on SIGTERM and SIGINT, and logs
 * and exits on an unhandled error.
 * @param start returns the function that stops what it started, or that and how long it can take
 */
export async function runService(logger: Logger, start: () => Promise<StopService | StartedService>): Promise<void> {
  const fatal = (error: unknown, message: string): never => {
    logger.fatal(error ? { err: error } : {}, message);
    logger.flush();
    process.exit(1);
  };
  process.on('uncaughtException', (error) => fatal(error, 'uncaught exception: exiting'));
  process.on('unhandledRejection', (error) => fatal(error, 'unhandled rejection: exiting'));

  let stopping = false;
  let started: StartedService | undefined;
  const onSignal = (signal: NodeJS.Signals) => {
    if (stopping) return;
    stopping = true;
    logger.debug({ signal }, 'stopping');
    const timeoutMs = started?.stopTimeoutMs ?? STOP_TIMEOUT_MS;
    setTimeout(() => fatal(undefined, `the stop timed out after ${timeoutMs} ms: exiting`), timeoutMs).unref();
    Promise.resolve(started?.stop()).then(
      () => process.exit(0),
      (error) => fatal(error, 'the stop failed'),
    );
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  try {
    const service = await start();
    started = typeof service === 'function' ? { stop: service, stopTimeoutMs: STOP_TIMEOUT_MS } : service;
  } catch (error) {
    if (error instanceof ConfigError) fatal(undefined, error.message);
    if (error instanceof StartError) fatal(undefined, `cannot start: ${error.message}`);
    fatal(error, `cannot start: ${(error as Error).message}`);
  }
}
