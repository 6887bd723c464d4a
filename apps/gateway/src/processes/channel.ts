/** One end of a connection between the primary and a worker: a `Worker` or the worker's own `process`. */
interface End {
  on(event: 'message', listener: (message: Message) => void): unknown;
  send?(message: Message, done: (error: Error | null) => void): boolean;
}

interface Message {
  readonly id: number;
  /** What is asked; absent in a response. */
  readonly ask?: string;
  readonly body?: unknown;
  readonly error?: string;
}

/** What the other end can ask, by name; each returns the response's body, or throws. */
export type Handlers = Readonly<Record<string, (body: never) => unknown>>;

/** Questions and responses between the primary and a worker. No secrets: each process reads them from its environment. */
export class Channel {
  readonly #waiting = new Map<number, { resolve: (body: unknown) => void; reject: (error: Error) => void }>();
  #lastId = 0;
  #closed: Error | undefined;

  constructor(
    private readonly end: End,
    private readonly handlers: Handlers,
  ) {
    end.on('message', (message) => void this.#onMessage(message));
  }

  /** @throws when the handler threw, nothing came within `timeoutMs` (default: no limit), or the other end is gone */
  ask<T>(ask: string, body?: unknown, timeoutMs?: number): Promise<T> {
    const id = ++this.#lastId;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    if (this.#closed) reject(this.#closed);
    else this.#waiting.set(id, { resolve, reject });
    const timer = timeoutMs && setTimeout(() => reject(new Error(`no response within ${timeoutMs} ms`)), timeoutMs);
    if (!this.#closed) this.#send({ id, ask, body });
    return promise.finally(() => {
      clearTimeout(timer);
      this.#waiting.delete(id);
    }) as Promise<T>;
  }

  /** Fails all that wait for the other end, now and later. */
  close(reason: string): void {
    this.#closed = new Error(reason);
    for (const { reject } of this.#waiting.values()) reject(this.#closed);
  }

  async #onMessage({ id, ask, body, error }: Message): Promise<void> {
    if (ask === undefined) {
      const waiting = this.#waiting.get(id);
      if (error === undefined) waiting?.resolve(body);
      else waiting?.reject(new Error(error));
      return;
    }
    try {
      this.#send({ id, body: await this.handlers[ask]?.(body as never) });
    } catch (failed) {
      this.#send({ id, error: (failed as Error).message });
    }
  }

  #send(message: Message): void {
    // Of an end that is gone its exit tells.
    this.end.send?.(message, () => undefined);
  }
}
