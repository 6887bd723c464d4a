/** Something under way at the public door that has limits of time. */
export interface Timed {
  /** Without an end of its own: an event stream, a WebSocket. */
  readonly endless: boolean;
  /** Called every {@link TICK_MS} while it is open. */
  tick(nowMs: number): void;
  /** Ends it at once: the gateway stops. */
  abandon(): void;
}

export const TICK_MS = 250;

/**
 * All that is open at the public door. One timer looks after all of it, so that an ordinary request costs no timer of
 * its own; limits are therefore met with a delay of up to {@link TICK_MS}.
 */
export class OpenExchanges {
  readonly #open = new Set<Timed>();
  readonly #timer: NodeJS.Timeout;
  #whenEmpty: (() => void) | undefined;
  /** `performance.now()` of the last tick: near enough for limits, and free to read. Nobody steps that clock. */
  nowMs = performance.now();

  constructor() {
    this.#timer = setInterval(() => {
      this.nowMs = performance.now();
      for (const exchange of this.#open) exchange.tick(this.nowMs);
    }, TICK_MS);
    this.#timer.unref();
  }

  get size(): number {
    return this.#open.size;
  }

  add(exchange: Timed): void {
    this.#open.add(exchange);
  }

  remove(exchange: Timed): void {
    this.#open.delete(exchange);
    if (this.#open.size === 0) this.#whenEmpty?.();
  }

  /** Ends what has no end of its own. */
  endStreams(): void {
    for (const exchange of [...this.#open]) if (exchange.endless) exchange.abandon();
  }

  /** Resolves once nothing is open; what still is after `graceMs` is abandoned. */
  async drain(graceMs: number): Promise<void> {
    if (this.#open.size > 0) {
      let timer: NodeJS.Timeout | undefined;
      await Promise.race([
        new Promise<void>((resolve) => {
          this.#whenEmpty = resolve;
        }),
        new Promise<void>((resolve) => {
          timer = setTimeout(resolve, graceMs);
        }),
      ]);
      clearTimeout(timer);
      for (const exchange of [...this.#open]) exchange.abandon();
    }
    clearInterval(this.#timer);
  }
}
