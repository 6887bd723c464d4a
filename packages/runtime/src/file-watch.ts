/** How often watched files are read. */
export const WATCH_MS = 2_000;

/** What files hold together, and what is done with it. */
export interface WatchedFiles<T> {
  /** @returns with a key that is equal for equal contents @throws Error that says what is wrong: what is in use stays */
  readonly read: () => Promise<{ readonly key: string; readonly content: T }>;
  /** @throws Error when the content may not be in use everywhere; at the next reading it is called again, with what is found then */
  readonly use: (content: T) => unknown;
  /** Called once for each reason, and at each reading that was asked for. */
  readonly onFault: (error: Error) => void;
  /** Called when the files hold what is in use, after a fault or at a reading that was asked for. */
  readonly onUnchanged?: () => void;
}

/**
 * Reads files every {@link WATCH_MS}, so that every way to replace them is noticed: notices of the file system miss swapped
 * links and network file systems. What is new is used once it was the same twice, as files are written bit by bit.
 */
export class FileWatch<T> {
  /** Undefined: not known, `use` has failed. */
  #inUse: string | undefined;
  #seen = '';
  #fault: string | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #isStopped = false;

  /** @param key of what is in use already */
  constructor(
    key: string,
    private readonly files: WatchedFiles<T>,
  ) {
    this.#inUse = key;
  }

  /** Why the files cannot be used; undefined: what they hold is in use. */
  get fault(): string | undefined {
    return this.#fault;
  }

  start(): void {
    this.#timer = setTimeout(() => {
      void this.check().finally(() => {
        if (!this.#isStopped) this.start();
      });
    }, WATCH_MS);
    this.#timer.unref();
  }

  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }

  /** Reads the files; what is new in them is used, or reported, at the second time. */
  check(): Promise<void> {
    return this.#inTurn(() => this.#read(false)).catch(() => undefined);
  }

  /** Reads the files and uses them at once. @throws Error that says why they cannot be used */
  now(): Promise<void> {
    return this.#inTurn(() => this.#read(true));
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(work, work);
    this.#turn = done.catch(() => undefined);
    return done;
  }

  async #read(isAsked: boolean): Promise<void> {
    const { read, use, onFault, onUnchanged } = this.files;
    const found = await read().catch((error: Error) => ({ error }));
    const seen = 'error' in found ? `error ${found.error.message}` : `content ${found.key}`;
    const isStable = isAsked || seen === this.#seen;
    this.#seen = seen;
    if (!isStable) return;
    try {
      if ('error' in found) throw found.error;
      if (found.key !== this.#inUse) {
        this.#inUse = undefined;
        await use(found.content);
        this.#inUse = found.key;
      } else if (isAsked || this.#fault !== undefined) onUnchanged?.();
      this.#fault = undefined;
    } catch (cause) {
      const error = cause as Error;
      const isKnown = error.message === this.#fault;
      this.#fault = error.message;
      if (!isKnown || isAsked) onFault(error);
      throw error;
    }
  }
}
