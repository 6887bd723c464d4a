import { REDIS } from '@latchkey/contracts';
import { type Clock, hear } from '@latchkey/runtime';
import type { Redis } from 'ioredis';
import type { Bus } from './types.js';

/** How often Redis is asked whether it answers, and how long that may take before it counts as away. */
const ASK_MS = 250;
const PATIENCE_MS = 150;

/** Publish/subscribe over two connections, because a subscribed one can do nothing else. */
export class RedisBus implements Bus {
  readonly #publisher: Redis;
  readonly #subscriber: Redis;
  #answers = true;
  #cancel: () => void = () => undefined;
  #stopped = false;

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

  /** Hears what other replicas publish, and this one. The answer ends it. */
  hearInvalidations(onMessage: (text: string) => void): () => void {
    return hear(this.#subscriber, REDIS.invalidations, onMessage);
  }

  /** Hands on an acknowledgement that did not come over Redis. */
  async relay(acknowledgement: string): Promise<void> {
    await this.#publisher.publish(REDIS.acknowledgements, acknowledgement);
  }

  isUnavailable(): boolean {
    return !this.#answers || this.#publisher.status !== 'ready' || this.#subscriber.status !== 'ready';
  }

  /** Asks again and again whether Redis answers: a connection may be open and carry nothing. */
  watchHealth(clock: Pick<Clock, 'after'>): void {
    if (this.#stopped) return;
    const cancelLate = clock.after(PATIENCE_MS, () => {
      this.#answers = false;
    });
    const done = (answers: boolean) => {
      cancelLate();
      this.#answers = answers;
      if (!this.#stopped) this.#cancel = clock.after(ASK_MS, () => this.watchHealth(clock));
    };
    this.#publisher.ping().then(
      () => done(true),
      () => done(false),
    );
  }

  stop(): void {
    this.#stopped = true;
    this.#cancel();
  }
}
