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
  /** `performance.now()` of the last tick: precise enough for limits, and monotonic. */
  nowMs = performance.now();
  /** Streams have been ended: none begins any more. */
  hasEndedStreams = false;

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
  }

  /** Ends event streams and WebSockets; those that would begin later are refused. */
  endStreams(): void {
    this.hasEndedStreams = true;
    for (const exchange of [...this.#open]) if (exchange.endless) exchange.abandon();
  }

  /** Abandons what is still open. */
  close(): void {
    for (const exchange of [...this.#open]) exchange.abandon();
    clearInterval(this.#timer);
  }
}
