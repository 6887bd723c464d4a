import { type FeedSigner, feedSigner } from '@latchkey/contracts';
import { type InvalidationStore, lapsedAfterMs, type WaitClock } from './types.js';

export interface FeedKeysDeps {
  /** The parts of `EVENTS_SIGNING_KEY`: the current secret, then the next. */
  readonly secrets: readonly Uint8Array[];
  readonly store: Pick<InvalidationStore, 'announceKeys'>;
  readonly clock: Pick<WaitClock, 'monotonicMs'>;
  /** Longest lease granted. */
  readonly leaseMs: number;
}

/**
 * The keys that sign invalidations. Renewals contain all public keys. The first key that renewals have contained for longer
 * than any lease lasts signs; while there is none, the first of all: after a key is replaced without that delay, verifiers
 * cannot confirm by acknowledgement until they have renewed.
 */
export class FeedKeys {
  readonly #deps: FeedKeysDeps;
  readonly #signers: readonly FeedSigner[];
  /** Since when renewals have contained each, by this process's clock; undefined until PostgreSQL has returned it. */
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
    const learnedMs = clock.monotonicMs() - lapsedAfterMs(leaseMs);
    const at = this.#sinceMs?.findIndex((sinceMs) => sinceMs <= learnedMs) ?? 0;
    return this.#signers[Math.max(0, at)]!;
  }

  /** Records for all replicas that renewals contain these keys. To be called at the start, and again every few minutes. */
  async announce(): Promise<void> {
    const { store, clock } = this.#deps;
    const askedMs = clock.monotonicMs();
    const forMs = await store.announceKeys(this.#signers.map(({ id }) => id));
    this.#sinceMs = forMs.map((ms) => askedMs - ms);
  }
}
