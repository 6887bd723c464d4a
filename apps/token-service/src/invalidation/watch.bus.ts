import type { Bus } from './types.js';
import type { WatchHub } from './watch.hub.js';

/** Redis and the streams of this replica as one: what is published reaches both, acknowledgements come from both. */
export class WatchBus implements Bus {
  readonly #redis: Bus & { isUnavailable(): boolean; relay(acknowledgement: string): Promise<void> };
  readonly #listeners = new Set<(text: string) => void>();
  /** To be set before anything is published. */
  hub: Pick<WatchHub, 'publish' | 'counters'> | undefined;

  constructor(redis: Bus & { isUnavailable(): boolean; relay(acknowledgement: string): Promise<void> }) {
    this.#redis = redis;
  }

  async publish(text: string): Promise<void> {
    this.hub?.publish(text);
    await this.#redis.publish(text);
  }

  subscribe(onAcknowledgement: (text: string) => void): () => void {
    this.#listeners.add(onAcknowledgement);
    const end = this.#redis.subscribe(onAcknowledgement);
    return () => {
      this.#listeners.delete(onAcknowledgement);
      end();
    };
  }

  isUnavailable(): boolean {
    return this.#redis.isUnavailable();
  }

  /** An acknowledgement from a stream of this replica: for waits here, and over Redis for those elsewhere. */
  acknowledge(text: string): void {
    for (const listener of this.#listeners) listener(text);
    this.#redis.relay(text).catch(() => {
      if (this.hub) this.hub.counters.relaysFailed++; // then rows confirm
    });
  }
}
