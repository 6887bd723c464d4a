import { EventEmitter } from 'node:events';
import type { WatchRequest, WatchResponse } from '@latchkey/contracts';
import type { WatchCall } from '@latchkey/verifier';
import type { LeaseCaller, WaitClock } from './types.js';
import type { WatchHub } from './watch.hub.js';
import { WatchStream } from './watch.stream.js';

/** The caller is this process, which has no token that could be revoked. */
const ACCEPTED = { allowed: true, expiresAtMs: 0 } as const;

/** The stream of a verifier in this process: a call of `Watch` without a connection. */
export class OwnWatch extends EventEmitter implements WatchCall {
  readonly writableLength = 0;
  #stream: WatchStream | undefined;
  #isOver = false;

  constructor(
    private readonly hub: WatchHub,
    private readonly caller: LeaseCaller,
    private readonly clock: WaitClock,
  ) {
    super();
  }

  /** As over a connection: the first message opens the stream, every later one is an acknowledgement. */
  write({ verifierId, cursor, acknowledgement }: WatchRequest): boolean {
    if (this.#stream) this.hub.acknowledge(this.#stream, acknowledgement);
    else void this.#open(verifierId, cursor);
    return true;
  }

  end(): void {
    if (!this.#isOver) this.#deliver(() => this.emit('end'));
    this.cancel();
  }

  cancel(): void {
    this.#isOver = true;
    if (this.#stream) this.hub.remove(this.#stream);
  }

  async #open(verifierId: string, cursor: WatchRequest['cursor']): Promise<void> {
    const stream = new WatchStream({
      verifierId,
      caller: this.caller,
      recheck: async () => ACCEPTED,
      clock: this.clock,
      write: (response) => {
        this.#receive(response);
        return true;
      },
      end: (why) => this.#fail(new Error(`the stream has ended: ${why}`)),
    });
    this.#stream = stream;
    try {
      const rejection = await this.hub.start(stream, cursor);
      if (rejection) this.#fail(new Error(`the stream was refused: ${rejection}`));
      else if (this.#isOver) this.hub.remove(stream);
    } catch (error) {
      this.#fail(error as Error);
    }
  }

  #receive(response: WatchResponse): void {
    this.#deliver(() => {
      if (!this.#isOver) this.emit('data', response);
    });
  }

  #fail(error: Error): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#deliver(() => this.emit('error', error));
  }

  /** In order, and never within the call that publishes a message. */
  #deliver(work: () => void): void {
    setImmediate(work);
  }
}
