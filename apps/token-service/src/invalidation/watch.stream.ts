import type { WatchResponse } from '@latchkey/contracts';
import { Budget } from '@latchkey/verifier';
import type { CallerNow } from '../rpc/index.js';
import type { LeaseCaller, WaitClock } from './types.js';

/** Messages that wait for one stream; beyond it they are left out, and the verifier is told to renew. */
export const WATCH_QUEUE_MAX = 1_000;
/** Acknowledgements of one stream that are looked at in a second; what comes beyond is dropped. */
const ACKNOWLEDGEMENTS_PER_SECOND_MAX = 500;

const NOTHING: WatchResponse = { message: '', renew: false, closing: false };
/** The stream has been opened. */
export const OPENED = NOTHING;
/** Messages were left out. */
export const RESET: WatchResponse = { ...NOTHING, renew: true };
export const CLOSING: WatchResponse = { ...NOTHING, closing: true };

/** Why a stream was ended, as a status of gRPC says it. */
export type WatchEnd = 'replaced' | 'no_lease' | 'token_ended' | 'unchecked' | 'stopped';

/** How long a stream stays open while its caller is checked again, or acknowledges the end of its token. */
const PATIENCE_MS = 250;

export interface WatchStreamDeps {
  readonly verifierId: string;
  readonly caller: LeaseCaller;
  /** Rejects when it cannot be found out. */
  readonly recheck: () => Promise<CallerNow>;
  readonly clock: WaitClock;
  /** False: `onDrained` is called once there is room again. */
  readonly write: (response: WatchResponse) => boolean;
  readonly end: (why: WatchEnd) => void;
}

/** One open stream: what waits for it, in bounds, and whether it has ended. */
export class WatchStream {
  readonly #deps: WatchStreamDeps;
  #queue: WatchResponse[] = [];
  #isBlocked = false;
  #ended = false;
  readonly #budget: Budget;
  /** What its caller's token has been told of since it was last checked. */
  #unchecked: string[] | undefined;
  #isChecking = false;
  #expiresAtMs = 0;
  /** Of what ended the caller's token: to be acknowledged before the stream ends. */
  #lastDigests: readonly string[] | undefined;

  constructor(deps: WatchStreamDeps) {
    this.#deps = deps;
    this.#budget = new Budget(deps.clock, ACKNOWLEDGEMENTS_PER_SECOND_MAX);
  }

  get verifierId(): string {
    return this.#deps.verifierId;
  }

  get caller(): LeaseCaller {
    return this.#deps.caller;
  }

  /** When the caller's token expires, in Unix milliseconds; 0: never. */
  get expiresAtMs(): number {
    return this.#expiresAtMs;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** @returns false when messages had to be left out */
  send(response: WatchResponse): boolean {
    if (this.#ended || this.#lastDigests) return true;
    if (!this.#isBlocked) {
      this.#write(response);
      return true;
    }
    const isFull = this.#queue.length >= WATCH_QUEUE_MAX;
    // Whoever is that far behind empties the queue faster by a renewal.
    if (isFull) this.#queue = [RESET];
    this.#queue.push(response);
    return !isFull;
  }

  onDrained(): void {
    this.#isBlocked = false;
    while (!this.#isBlocked && !this.#ended) {
      const next = this.#queue.shift();
      if (!next) return;
      this.#write(next);
    }
  }

  /** Whether another acknowledgement is looked at in this second. */
  mayAcknowledge(): boolean {
    return this.#budget.take();
  }

  /**
   * Checks the caller again, one check at a time. The stream ends when it is not let in any more: with the
   * acknowledgement of what it was told last, so that nobody has to wait for its lease, or soon.
   * @param digests of the invalidations that may have ended its token
   */
  check(digests: readonly string[]): void {
    this.#unchecked ??= [];
    this.#unchecked.push(...digests);
    if (!this.#isChecking) void this.#check();
  }

  async #check(): Promise<void> {
    this.#isChecking = true;
    while (this.#unchecked && !this.#ended) {
      const digests = this.#unchecked;
      this.#unchecked = undefined;
      const now = await this.#callerNow();
      if (now === undefined) this.end('unchecked');
      else if (now.allowed) this.#expiresAtMs = now.expiresAtMs;
      else if (digests.length === 0) this.end('token_ended');
      else {
        this.#lastDigests = digests;
        this.#deps.clock.after(PATIENCE_MS, () => this.end('token_ended'));
        break;
      }
    }
    this.#isChecking = false;
  }

  /** Undefined when it cannot be found out in time. */
  async #callerNow(): Promise<CallerNow | undefined> {
    const { promise: late, resolve } = Promise.withResolvers<undefined>();
    const cancel = this.#deps.clock.after(PATIENCE_MS, () => resolve(undefined));
    const now = await Promise.race([this.#deps.recheck().catch(() => undefined), late]);
    cancel();
    return now;
  }

  onAcknowledged(digests: readonly string[]): void {
    if (this.#lastDigests?.some((digest) => digests.includes(digest))) this.end('token_ended');
  }

  end(why: WatchEnd): void {
    if (this.#ended) return;
    this.close();
    this.#deps.end(why);
  }

  /** The call is over, whoever ended it. */
  close(): void {
    this.#ended = true;
    this.#queue = [];
  }

  #write(response: WatchResponse): void {
    this.#isBlocked = !this.#deps.write(response);
  }
}
