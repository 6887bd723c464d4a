import type { Logger } from '@latchkey/runtime';

/** So many failures in a row end the requests to an upstream. */
export const EJECTED_AFTER = 3;
/** For how long at first; doubled each time that the first request afterwards fails too. */
export const EJECTED_MS = 5_000;
export const EJECTED_MS_MAX = 60_000;
/** So many checks in a row make it unhealthy, or healthy again; the first one decides alone. */
export const UNHEALTHY_AFTER = 3;
export const HEALTHY_AFTER = 2;

/** Whether one of several upstreams is fit for requests, as this process has found. */
export class UpstreamHealth {
  /** Requests are sent to it while others like it are there. */
  isAvailable = true;
  /** Since the start. */
  readonly counts = { failures: 0, ejections: 0, checksPassed: 0, checksFailed: 0 };
  #failures = 0;
  /** Ejections without a success between them. */
  #ejections = 0;
  /** By `performance.now()`; undefined while it is not ejected. */
  #ejectedUntilMs: number | undefined;
  #isHealthy = true;
  /** Checks in a row that say the opposite of `#isHealthy`. */
  #contrary = 0;

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

  /** The result of a health check. @param failure undefined: it was passed */
  checked(failure: string | undefined): void {
    const { counts, upstream, logger } = this;
    const isFirst = counts.checksPassed + counts.checksFailed === 0;
    if (failure === undefined) counts.checksPassed++;
    else counts.checksFailed++;
    const isHealthy = failure === undefined;
    if (isHealthy === this.#isHealthy) {
      this.#contrary = 0;
      return;
    }
    if (++this.#contrary < (isHealthy ? HEALTHY_AFTER : UNHEALTHY_AFTER) && !isFirst) return;
    this.#isHealthy = isHealthy;
    this.#contrary = 0;
    if (isHealthy) logger.info({ upstream }, 'upstream healthy: its health checks are passed again');
    else logger.warn({ upstream, reason: failure }, 'upstream unhealthy: its health checks failed');
    this.#update();
  }

  tick(nowMs: number): void {
    if (this.#ejectedUntilMs === undefined || nowMs < this.#ejectedUntilMs) return;
    this.#ejectedUntilMs = undefined;
    this.logger.info({ upstream: this.upstream }, 'upstream returned: requests are sent to it again');
    this.#update();
  }

  #update(): void {
    this.isAvailable = this.#isHealthy && this.#ejectedUntilMs === undefined;
  }
}
