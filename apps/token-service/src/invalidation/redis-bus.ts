import { REDIS } from '@latchkey/contracts';
import type { Redis } from 'ioredis';
import type { Bus } from './types.js';

/**
 * Publish/subscribe over two connections, because a subscribed one can do nothing else. The subscriber is made with
 * `autoResubscribe: false`: it subscribes here whenever it is ready, with the failure in hand.
 */
export class RedisBus implements Bus {
  readonly #publisher: Redis;
  readonly #subscriber: Redis;

  constructor(publisher: Redis, subscriber: Redis) {
    this.#publisher = publisher;
    this.#subscriber = subscriber;
  }

  async publish(text: string): Promise<void> {
    await this.#publisher.publish(REDIS.invalidations, text);
  }

  subscribe(onAcknowledgement: (text: string) => void): () => void {
    const channel = REDIS.acknowledgements;
    const onMessage = (from: string, text: string) => {
      if (from === channel) onAcknowledgement(text);
    };
    // A connection lost again before it has subscribed says so by itself, and is ready again later.
    const subscribe = () => void this.#subscriber.subscribe(channel).catch(() => undefined);
    this.#subscriber.on('message', onMessage);
    this.#subscriber.on('ready', subscribe);
    if (this.#subscriber.status === 'ready') subscribe();
    return () => {
      this.#subscriber.off('message', onMessage);
      this.#subscriber.off('ready', subscribe);
      void this.#subscriber.unsubscribe(channel).catch(() => undefined);
    };
  }
}
