/** An open request, stream or WebSocket, subject to limits of time. */
export interface Timed {
  /** An event stream or a WebSocket. */
  readonly endless: boolean;
  /** Called every {@link TICK_MS} while it is open. */
  tick(nowMs: number): void;
  /** Ends it at once, when the gateway stops. */
  abandon(): void;
}

export const TICK_MS = 250;

/**
 * All open requests, streams and WebSockets of the public port. One timer serves all of them, so limits are enforced
 * up to {@link TICK_MS} late.
 */
export class OpenExchanges {
  readonly #open = new Set<Timed>();
  readonly #timer: NodeJS.Timeout;
  #whenEmpty: (() => void) | undefined;
  /** `performance.now()` of the last tick: precise enough for limits, and monotonic. */
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

  /** Ends event streams and WebSockets. */
  endStreams(): void {
    for (const exchange of [...this.#open]) if (exchange.endless) exchange.abandon();
  }

  /** Resolves once nothing is open; abandons what is still open after `graceMs`. */
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
