import { errorOf, LatchkeyError } from './errors.js';

export interface Retries {
  /** Tries in all, the first included. Default 3; 1 tries nothing again. */
  attemptsMax: number;
  /** Least pause before the second try, in milliseconds; doubles with each further one. Default 200. */
  delayMsMin: number;
  /** Longest pause, in milliseconds; a `Retry-After` beyond it is not waited for. Default 10 000. */
  delayMsMax: number;
}

export interface SendOptions {
  signal: AbortSignal | undefined;
  timeoutMs: number | undefined;
  /** The time limit is at least this, in milliseconds. */
  atLeastMs: number;
  /** Sending it twice changes nothing more than sending it once. */
  repeatable: boolean;
  /** The time limit ends with the headers; the body may go on. */
  streamed: boolean;
}

export interface Opened {
  response: Response;
  /** Reads the body under the call's time limit. */
  done<T>(read: () => Promise<T>): Promise<T>;
}

/** Sends one call: time limit, signal, tries again, errors as LatchkeyError. */
export class Transport {
  constructor(private readonly settings: { fetch: typeof globalThis.fetch; timeoutMs: number; retries: Retries }) {}

  async send(url: string, init: RequestInit, options: SendOptions): Promise<Opened> {
    const limitMs = options.timeoutMs ?? Math.max(this.settings.timeoutMs, options.atLeastMs);
    const timer = new AbortController();
    const timeout = setTimeout(() => timer.abort(), limitMs);
    const signal = options.signal ? AbortSignal.any([options.signal, timer.signal]) : timer.signal;

    /** Runs a step of the call and tells its failures apart. */
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
      const passing = failure.status === 503 || failure.code === 'network';
      const askedMs = failure.retryAfterMs ?? 0;
      if (!repeatable || !passing || attempt >= attemptsMax || askedMs > delayMsMax) throw failure;
      const backOffMs = Math.min(delayMsMax, delayMsMin * 2 ** (attempt - 1));
      // Spread over half of the pause, so that many clients do not come back at one moment.
      await pause(Math.max(askedMs, backOffMs * (0.5 + Math.random() / 2)), signal);
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
  const detail = `no answer within ${limitMs} ms; a change may have happened all the same, so look before repeating it`;
  return new LatchkeyError({ code: 'timeout', status: 0, detail, requestId: null }, cause);
}

function unreachable(cause: unknown): LatchkeyError {
  const reason = (cause as { cause?: { code?: unknown } }).cause?.code;
  const detail = `the server cannot be reached${typeof reason === 'string' ? ` (${reason})` : ''}; check the address and the network`;
  return new LatchkeyError({ code: 'network', status: 0, detail, requestId: null }, cause);
}
