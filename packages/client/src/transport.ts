import { errorOf, LatchkeyError } from './errors.js';

export interface Retries {
  /** Attempts, the first included. Default 3; 1 disables retries. */
  attemptsMax: number;
  /** Minimum delay before the first retry, in milliseconds; doubles with each further one. Default 200. */
  delayMsMin: number;
  /** Maximum delay, in milliseconds; with a longer `Retry-After` the call fails at once. Default 10 000. */
  delayMsMax: number;
}

export interface SendOptions {
  signal: AbortSignal | undefined;
  timeoutMs: number | undefined;
  /** Lower bound of the timeout, in milliseconds. */
  atLeastMs: number;
  /** The call is idempotent. */
  repeatable: boolean;
  /** The timeout applies to the headers only, not to the body. */
  streamed: boolean;
}

export interface Opened {
  response: Response;
  /** Reads the body within the call's timeout. */
  done<T>(read: () => Promise<T>): Promise<T>;
}

/** Sends one call: timeout, signal, retries, errors as LatchkeyError. */
export class Transport {
  constructor(private readonly settings: { fetch: typeof globalThis.fetch; timeoutMs: number; retries: Retries }) {}

  async send(url: string, init: RequestInit, options: SendOptions): Promise<Opened> {
    const limitMs = options.timeoutMs ?? Math.max(this.settings.timeoutMs, options.atLeastMs);
    const timer = new AbortController();
    const timeout = setTimeout(() => timer.abort(), limitMs);
    const signal = options.signal ? AbortSignal.any([options.signal, timer.signal]) : timer.signal;

    /** Runs a step of the call and classifies its failures. */
    const step = async <T>(work: () => Promise<T>): Promise<T> => {
      try {
        return await work();
      } catch (error) {
        options.signal?.throwIfAborted();
        if (timer.signal.aborted) throw timedOut(limitMs, error);
        if (error instanceof LatchkeyError) throw error;
        throw unreachable(error);
      }
    };

    try {
      options.signal?.throwIfAborted();
      const response = await step(() => this.attempts(url, { ...init, signal }, options.repeatable, signal));
      if (options.streamed) clearTimeout(timeout);
      return {
        response,
        done: (read) => step(read).finally(() => clearTimeout(timeout)),
      };
    } catch (error) {
      clearTimeout(timeout);
      throw error;
    }
  }

  private async attempts(url: string, init: RequestInit, repeatable: boolean, signal: AbortSignal): Promise<Response> {
    const { attemptsMax, delayMsMin, delayMsMax } = this.settings.retries;
    for (let attempt = 1; ; attempt++) {
      let failure: LatchkeyError;
      try {
        const response = await this.settings.fetch(url, init);
        if (response.ok) return response;
        failure = await errorOf(response);
      } catch (error) {
        signal.throwIfAborted();
        failure = unreachable(error);
      }
      const isTransient = failure.status === 503 || failure.code === 'network';
      const requestedMs = failure.retryAfterMs ?? 0;
      if (!repeatable || !isTransient || attempt >= attemptsMax || requestedMs > delayMsMax) throw failure;
      const backOffMs = Math.min(delayMsMax, delayMsMin * 2 ** (attempt - 1));
      // Jitter over half of the delay, so that many clients do not retry at the same time.
      await pause(Math.max(requestedMs, backOffMs * (0.5 + Math.random() / 2)), signal);
    }
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const ended = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', ended);
      resolve();
    }, ms);
    signal.addEventListener('abort', ended, { once: true });
  });
}

function timedOut(limitMs: number, cause: unknown): LatchkeyError {
  const detail = `no response within ${limitMs} ms; a change may have been applied, so check before you repeat it`;
  return new LatchkeyError({ code: 'timeout', status: 0, detail, requestId: null }, cause);
}

function unreachable(cause: unknown): LatchkeyError {
  const reason = (cause as { cause?: { code?: unknown } }).cause?.code;
  const detail = `the server cannot be reached${typeof reason === 'string' ? ` (${reason})` : ''}; check the URL and the network`;
  return new LatchkeyError({ code: 'network', status: 0, detail, requestId: null }, cause);
}
