import type { WatchResponse } from '@latchkey/contracts';
import { Budget } from '@latchkey/verifier';
import type { CallerNow } from '../rpc/index.js';
import type { LeaseCaller, WaitClock } from './types.js';

/** Messages queued for one stream; beyond it they are dropped, and the verifier has to renew. */
export const WATCH_QUEUE_MAX = 1_000;
/** Acknowledgements of one stream that are handled per second; more are dropped. */
const ACKNOWLEDGEMENTS_PER_SECOND_MAX = 500;

const NOTHING: WatchResponse = { message: '', renew: false, closing: false };
/** The stream has been opened. */
export const OPENED = NOTHING;
/** Messages were dropped. */
export const RESET: WatchResponse = { ...NOTHING, renew: true };
export const CLOSING: WatchResponse = { ...NOTHING, closing: true };

/** Why a stream was ended. */
export type WatchEnd = 'replaced' | 'no_lease' | 'rejected' | 'unchecked' | 'stopped';

/** How long a stream stays open while its caller is checked again, or acknowledges its token's revocation. */
const CHECK_TIMEOUT_MS = 250;

export interface WatchStreamDeps {
  readonly verifierId: string;
  readonly caller: LeaseCaller;
  /** Rejects when the check fails. */
  readonly recheck: () => Promise<CallerNow>;
  readonly clock: WaitClock;
  /** False: the buffer is full; `onDrained` is called once it has space. */
  readonly write: (response: WatchResponse) => boolean;
  readonly end: (why: WatchEnd) => void;
}

/** One open stream: its bounded queue, and whether it has ended. */
export class WatchStream {
  readonly #deps: WatchStreamDeps;
  #queue: WatchResponse[] = [];
  #isBlocked = false;
  #ended = false;
  readonly #budget: Budget;
  /** Digests of invalidations that its caller's token received since it was last checked. */
  #unchecked: string[] | undefined;
  #isChecking = false;
  #expiresAtMs = 0;
  /** Of the invalidations that revoked the caller's token: to be acknowledged before the stream ends. */
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

  /** @returns false when messages had to be dropped */
  send(response: WatchResponse): boolean {
    if (this.#ended || this.#lastDigests) return true;
    if (!this.#isBlocked) {
      this.#write(response);
      return true;
    }
    const isFull = this.#queue.length >= WATCH_QUEUE_MAX;
    // A verifier that far behind catches up faster by a renewal.
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

  /** Whether another acknowledgement is handled in this second. */
  canAcknowledge(): boolean {
    return this.#budget.take();
  }

  /**
   * Checks the caller again, one check at a time. When it is no longer accepted, the stream ends with the acknowledgement
   * of the last invalidations, so that no confirmation has to wait for its lease, or after 250 ms.
   * @param digests of the invalidations that may have revoked its token
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
      else if (digests.length === 0) this.end('rejected');
      else {
        this.#lastDigests = digests;
        this.#deps.clock.after(CHECK_TIMEOUT_MS, () => this.end('rejected'));
        break;
      }
    }
    this.#isChecking = false;
  }

  /** Undefined when the check fails or takes too long. */
  async #callerNow(): Promise<CallerNow | undefined> {
    const { promise: timeout, resolve } = Promise.withResolvers<undefined>();
    const cancel = this.#deps.clock.after(CHECK_TIMEOUT_MS, () => resolve(undefined));
    const now = await Promise.race([this.#deps.recheck().catch(() => undefined), timeout]);
    cancel();
    return now;
  }

  onAcknowledged(digests: readonly string[]): void {
    if (this.#lastDigests?.some((digest) => digests.includes(digest))) this.end('rejected');
  }

  end(why: WatchEnd): void {
    if (this.#ended) return;
    this.close();
    this.#deps.end(why);
  }

  /** The call has ended, by either side. */
  close(): void {
    this.#ended = true;
    this.#queue = [];
  }

  #write(response: WatchResponse): void {
    this.#isBlocked = !this.#deps.write(response);
  }
}
