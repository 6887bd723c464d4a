import { type FeedSigner, feedSigner } from '@latchkey/contracts';
import { type InvalidationStore, lapsedAfterMs, type WaitClock } from './types.js';

export interface FeedKeysDeps {
  /** The deps of `EVENTS_SIGNING_KEY`: the current one, then the next. */
  readonly secrets: readonly Uint8Array[];
  readonly store: Pick<InvalidationStore, 'announceKeys'>;
  readonly clock: Pick<WaitClock, 'monotonicMs'>;
  /** Longest lease granted. */
  readonly leaseMs: number;
}

/**
 * The keys that sign invalidations. Renewals name all of them; of those that have been named for as long as any lease
 * lasts the first signs, and while none has, the first of all: a key replaced in haste costs confirmations by
 * acknowledgement, until each verifier has renewed.
 */
export class FeedKeys {
  readonly #deps: FeedKeysDeps;
  readonly #signers: readonly FeedSigner[];
  /** Since when each has been named, on this process's clock; undefined while PostgreSQL has not said. */
  #sinceMs: readonly number[] | undefined;

  constructor(deps: FeedKeysDeps) {
    this.#deps = deps;
    this.#signers = deps.secrets.map(feedSigner);
  }

  get publicKeys(): Uint8Array[] {
    return this.#signers.map(({ publicKey }) => publicKey);
  }

  get signer(): FeedSigner {
    const { clock, leaseMs } = this.#deps;
    const learntMs = clock.monotonicMs() - lapsedAfterMs(leaseMs);
    const at = this.#sinceMs?.findIndex((sinceMs) => sinceMs <= learntMs) ?? 0;
    return this.#signers[Math.max(0, at)]!;
  }

  /** Notes for all replicas that renewals name these keys. To be called at the start, and again every few minutes. */
  async announce(): Promise<void> {
    const { store, clock } = this.#deps;
    const askedMs = clock.monotonicMs();
    const forMs = await store.announceKeys(this.#signers.map(({ id }) => id));
    this.#sinceMs = forMs.map((ms) => askedMs - ms);
  }
}
