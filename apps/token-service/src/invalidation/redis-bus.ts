import { REDIS } from '@latchkey/contracts';
import { hear } from '@latchkey/runtime';
import type { Redis } from 'ioredis';
import type { Bus } from './types.js';

/** Publish/subscribe over two connections, because a subscribed one can do nothing else. */
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
    return hear(this.#subscriber, REDIS.acknowledgements, onAcknowledgement);
  }
}
