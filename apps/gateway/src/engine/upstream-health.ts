import type { Logger } from '@latchkey/runtime';

/** So many failures in a row end the requests to an upstream. */
export const EJECTED_AFTER = 3;
/** For how long at first; doubled each time that the first request afterwards fails too. */
export const EJECTED_MS = 5_000;
export const EJECTED_MS_MAX = 60_000;

/** Whether one of several upstreams is fit for requests, as this process has found. */
export class UpstreamHealth {
  /** Requests are sent to it while others like it are there. */
  isAvailable = true;
  /** Since the start. */
  readonly counts = { failures: 0, ejections: 0 };
  #failures = 0;
  /** Ejections without a success between them. */
  #ejections = 0;
  /** By `performance.now()`; undefined while it is not ejected. */
  #ejectedUntilMs: number | undefined;

  constructor(
    readonly upstream: string,
    private readonly logger: Logger,
  ) {}

  /** A response has begun. */
  succeeded(): void {
    if (this.#failures === 0 || this.#ejectedUntilMs !== undefined) return;
    this.#failures = 0;
    this.#ejections = 0;
  }

  /** A request has failed before a response, by the upstream's fault. */
  failed(reason: string, nowMs: number): void {
    this.counts.failures++;
    if (this.#ejectedUntilMs !== undefined || ++this.#failures < EJECTED_AFTER) return;
    const ejectedMs = Math.min(EJECTED_MS * 2 ** this.#ejections++, EJECTED_MS_MAX);
    this.counts.ejections++;
    this.#ejectedUntilMs = nowMs + ejectedMs;
    // The next failure decides.
    this.#failures = EJECTED_AFTER - 1;
    this.logger.warn({ upstream: this.upstream, reason, ejectedMs }, 'upstream ejected: it failed too often in a row');
    this.#update();
  }

  tick(nowMs: number): void {
    if (this.#ejectedUntilMs === undefined || nowMs < this.#ejectedUntilMs) return;
    this.#ejectedUntilMs = undefined;
    this.logger.info({ upstream: this.upstream }, 'upstream returned: requests are sent to it again');
    this.#update();
  }

  #update(): void {
    this.isAvailable = this.#ejectedUntilMs === undefined;
  }
}
