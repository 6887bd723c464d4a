import type { WatchRequest, WatchResponse } from '@latchkey/contracts';
import type { Clock, Feed, FeedSubscriber, OnFeedMessage } from './types.js';

/** A call of `latchkey.v1.Tokens/Watch`: the used part of grpc-js's `ClientDuplexStream`. */
export interface WatchCall {
  write(request: WatchRequest): boolean;
  /** Requests not sent yet. */
  readonly writableLength: number;
  /** Half-closes the call; the server then ends it. */
  end(): void;
  /** Ends the call at once. */
  cancel(): void;
  on(event: 'data', listener: (response: WatchResponse) => void): unknown;
  on(event: 'error', listener: (error: Error) => void): unknown;
  on(event: 'end', listener: () => void): unknown;
}

export interface WatchFeedOptions {
  /** Starts a call, to any replica. */
  readonly open: () => WatchCall;
  readonly clock: Pick<Clock, 'after'>;
  /** Between 0 and 1: jitter, so that verifiers do not retry together. Default `Math.random`. */
  readonly random?: () => number;
  /** Delay before a new stream after a failure; doubles up to `retryMsMax`. Default 100. */
  readonly retryMs?: number;
  /** Default 5 000. */
  readonly retryMsMax?: number;
  /** Called whenever a stream has ended unexpectedly. */
  readonly onInterrupted?: (error: Error) => void;
}

const RETRY_MS = 100;
const RETRY_MS_MAX = 5_000;
/** How long a half-closed call can take to end before it is cancelled. */
const END_MS = 1_000;
/** Most acknowledgements waiting to be sent; further ones fail, and the message is sent again. */
const UNSENT_MAX = 1_000;

interface Session {
  readonly call: WatchCall;
  readonly verifierId: string;
  /** The server has responded: every message from here on is received. */
  isOpen: boolean;
  isOver: boolean;
  cancelSteady: () => void;
}

/**
 * The feed over a stream of the token-service: a verifier with it needs an address and a token, and no Redis. A stream
 * opens once there is a lease, starts at the verifier's cursor, and is replaced, with back-off, whenever it ends; before
 * a server stops, the new stream opens first.
 */
export class WatchFeed implements Feed {
  readonly #options: WatchFeedOptions;
  #subscriber: FeedSubscriber | undefined;
  #onMessage: OnFeedMessage = () => undefined;
  /** The stream that messages are received and acknowledged on. */
  #current: Session | undefined;
  /** Its replacement, until the server has responded on it. */
  #next: Session | undefined;
  #failures = 0;
  #cancelRetry: (() => void) | undefined;

  constructor(options: WatchFeedOptions) {
    this.#options = options;
  }

  /** Whether messages are received at this moment. */
  get isOpen(): boolean {
    return this.#current?.isOpen === true && !this.#current.isOver;
  }

  subscribe(onMessage: OnFeedMessage, subscriber: FeedSubscriber): () => void {
    this.#onMessage = onMessage;
    this.#subscriber = subscriber;
    return () => {
      this.#subscriber = undefined;
      this.#cancelRetry?.();
      this.#cancelRetry = undefined;
      for (const session of [this.#current, this.#next]) if (session) this.#end(session);
      this.#current = undefined;
      this.#next = undefined;
    };
  }

  onRenewed(): void {
    const { id } = this.#subscriber ?? {};
    const newest = this.#next ?? this.#current;
    if (id === undefined || newest?.verifierId === id) return;
    // Acknowledgements on the old stream no longer count under a new id.
    if (newest || !this.#cancelRetry) this.#open();
  }

  async acknowledge(text: string): Promise<void> {
    const session = this.#current;
    if (!session || session.isOver) throw new Error('no stream is open to acknowledge on');
    if (session.call.writableLength >= UNSENT_MAX) throw new Error('too many acknowledgements are waiting to be sent');
    session.call.write({ verifierId: '', cursor: null, acknowledgement: text });
  }

  #open(): void {
    this.#cancelRetry?.();
    this.#cancelRetry = undefined;
    const { id, cursor } = this.#subscriber ?? {};
    if (id === undefined) return; // `onRenewed` opens it
    if (this.#next) this.#end(this.#next);
    let call: WatchCall;
    try {
      call = this.#options.open();
    } catch (error) {
      this.#next = undefined;
      this.#failed(error as Error);
      return;
    }
    const session: Session = { call, verifierId: id, isOpen: false, isOver: false, cancelSteady: () => undefined };
    this.#next = session;
    call.on('data', (response) => this.#receive(session, response));
    call.on('error', (error) => this.#over(session, error));
    call.on('end', () => this.#over(session, new Error('the server ended the stream')));
    call.write({ verifierId: id, cursor: cursor ?? null, acknowledgement: '' });
  }

  #receive(session: Session, { message, renew, closing }: WatchResponse): void {
    if (this.#subscriber === undefined) return;
    if (this.#next === session) this.#takeOver(session);
    if (message !== '') this.#onMessage(message, renew);
    else if (renew) this.#subscriber.renew();
    if (closing && this.#current === session && !this.#next) this.#open();
  }

  /** The server has responded on the new stream, so no message is missed when the old one ends. */
  #takeOver(session: Session): void {
    const old = this.#current;
    this.#next = undefined;
    this.#current = session;
    session.isOpen = true;
    // A stream that ends soon counts as another failure.
    const { clock, retryMsMax = RETRY_MS_MAX } = this.#options;
    session.cancelSteady = clock.after(retryMsMax, () => {
      this.#failures = 0;
    });
    if (old && !old.isOver) this.#end(old);
  }

  #over(session: Session, error: Error): void {
    if (session.isOver) return;
    session.isOver = true;
    session.cancelSteady();
    if (this.#next === session) this.#next = undefined;
    else if (this.#current === session) this.#current = undefined;
    else return; // ended by this side
    this.#failed(error);
  }

  #failed(error: Error): void {
    if (this.#subscriber === undefined) return;
    this.#options.onInterrupted?.(error);
    if (this.#next || this.#cancelRetry) return;
    const { clock, random = Math.random, retryMs = RETRY_MS, retryMsMax = RETRY_MS_MAX } = this.#options;
    const delayMs = Math.min(retryMsMax, retryMs * 2 ** Math.min(this.#failures++, 16)) * (0.5 + random() / 2);
    this.#cancelRetry = clock.after(delayMs, () => this.#open());
  }

  #end(session: Session): void {
    session.isOver = true;
    session.cancelSteady();
    session.call.end();
    const cancel = this.#options.clock.after(END_MS, () => session.call.cancel());
    session.call.on('end', cancel);
    session.call.on('error', cancel);
  }
}
