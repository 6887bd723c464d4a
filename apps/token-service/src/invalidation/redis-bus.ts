import { REDIS } from '@latchkey/contracts';
import { type Clock, subscribe } from '@latchkey/runtime';
import type { Redis } from 'ioredis';
import type { Bus } from './types.js';

/** How often Redis is pinged, and how long the reply can take before Redis counts as unavailable. */
const PING_MS = 250;
const PING_TIMEOUT_MS = 150;

/** Publish/subscribe over two connections, because a subscribed one cannot be used for anything else. */
export class RedisBus implements Bus {
  readonly #publisher: Redis;
  readonly #subscriber: Redis;
  #isResponsive = true;
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
    return subscribe(this.#subscriber, REDIS.acknowledgements, onAcknowledgement);
  }

  /** Receives what all replicas publish, this one included. @returns ends the subscription */
  subscribeInvalidations(onMessage: (text: string) => void): () => void {
    return subscribe(this.#subscriber, REDIS.invalidations, onMessage);
  }

  /** Forwards an acknowledgement that was not received over Redis. */
  async relay(acknowledgement: string): Promise<void> {
    await this.#publisher.publish(REDIS.acknowledgements, acknowledgement);
  }

  isUnavailable(): boolean {
    return !this.#isResponsive || this.#publisher.status !== 'ready' || this.#subscriber.status !== 'ready';
  }

  /** Pings Redis periodically: a connection can be open and dead. */
  watchHealth(clock: Pick<Clock, 'after'>): void {
    if (this.#stopped) return;
    const cancelTimeout = clock.after(PING_TIMEOUT_MS, () => {
      this.#isResponsive = false;
    });
    const done = (isResponsive: boolean) => {
      cancelTimeout();
      this.#isResponsive = isResponsive;
      if (!this.#stopped) this.#cancel = clock.after(PING_MS, () => this.watchHealth(clock));
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
