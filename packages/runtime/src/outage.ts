import type { Logger } from 'pino';

/**
 * Logs an outage once when it begins, and once when it is over, with how long it lasted and how often something failed
 * because of it.
 */
export class OutageLog {
  #begunAt: number | undefined;
  #lastAt = 0;
  #failures = 0;

  /**
   * @param what is unavailable, to begin a sentence with
   * @param effect what follows from it
   * @param quietMs how long nothing must have failed for it to be over. Default 0
   */
  constructor(
    private readonly logger: Logger,
    private readonly what: string,
    private readonly effect: string,
    private readonly quietMs = 0,
  ) {}

  /** @param fields for the line, if this is the beginning */
  failed(reason: string, fields: object = {}): void {
    this.#failures++;
    this.#lastAt = performance.now();
    if (this.#begunAt !== undefined) return;
    this.#begunAt = this.#lastAt;
    this.logger.warn({ ...fields, reason }, `${this.what} is unavailable; ${this.effect}`);
  }

  /** @returns whether there is no outage now */
  worked(): boolean {
    if (this.#begunAt === undefined) return true;
    if (performance.now() - this.#lastAt < this.quietMs) return false;
    const seconds = Math.round((performance.now() - this.#begunAt) / 100) / 10;
    this.logger.info({ seconds, failures: this.#failures }, `${this.what} is available again`);
    this.#begunAt = undefined;
    this.#failures = 0;
    return true;
  }
}
