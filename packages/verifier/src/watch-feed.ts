import type { WatchRequest, WatchResponse } from '@latchkey/contracts';
import type { Clock, Feed, FeedHolder, OnFeedMessage } from './types.js';

/** A call of `latchkey.v1.Tokens/Watch`, as grpc-js makes it (`ClientDuplexStream`). */
export interface WatchCall {
  write(request: WatchRequest): boolean;
  /** Requests that have not left yet. */
  readonly writableLength: number;
  /** Says that nothing more is sent; the server then ends the call. */
  end(): void;
  /** Ends the call at once. */
  cancel(): void;
  on(event: 'data', listener: (response: WatchResponse) => void): unknown;
  on(event: 'error', listener: (error: Error) => void): unknown;
  on(event: 'end', listener: () => void): unknown;
}

export interface WatchFeedOptions {
  /** Begins a call, to whichever replica answers. */
  readonly open: () => WatchCall;
  readonly clock: Pick<Clock, 'after'>;
  /** Between 0 and 1: spreads what many verifiers do after the same failure. Default `Math.random`. */
  readonly random?: () => number;
  /** How soon another stream is opened after a failure; doubles up to the longest. Default 100. */
  readonly retryMs?: number;
  /** Default 5 000. */
  readonly retryMsMax?: number;
  /** Called whenever a stream has ended that should not have. */
  readonly onInterrupted?: (error: Error) => void;
}

const RETRY_MS = 100;
const RETRY_MS_MAX = 5_000;
/** How long a call that was told to end may take before it is cancelled. */
const END_MS = 1_000;
/** Acknowledgements that wait to be sent; beyond it they fail, and the message comes again. */
const UNSENT_MAX = 1_000;

interface Session {
  readonly call: WatchCall;
  readonly holderId: string;
  /** Has been answered: every message from here on is heard. */
  isOpen: boolean;
  isOver: boolean;
  cancelSteady: () => void;
}

/**
 * The feed over a stream of the token-service: a verifier with it needs an address and a token, and no Redis. It opens
 * once there is a lease, begins where the verifier's memory stands, and is opened anew, with back-off, whenever it ends;
 * before the old one ends where the server says that it stops.
 */
export class WatchFeed implements Feed {
  readonly #options: WatchFeedOptions;
  #holder: FeedHolder | undefined;
  #onMessage: OnFeedMessage = () => undefined;
  /** The stream that is heard, and acknowledged on. */
  #current: Session | undefined;
  /** The one that is to take its place, before it has been answered. */
  #next: Session | undefined;
  #failures = 0;
  #cancelRetry: (() => void) | undefined;

  constructor(options: WatchFeedOptions) {
    this.#options = options;
  }

  /** Whether messages are heard at this moment. */
  get isOpen(): boolean {
    return this.#current?.isOpen === true && !this.#current.isOver;
  }

  subscribe(onMessage: OnFeedMessage, holder: FeedHolder): () => void {
    this.#onMessage = onMessage;
    this.#holder = holder;
    return () => {
      this.#holder = undefined;
      this.#cancelRetry?.();
      this.#cancelRetry = undefined;
      for (const session of [this.#current, this.#next]) if (session) this.#end(session);
      this.#current = undefined;
      this.#next = undefined;
    };
  }

  onRenewed(): void {
    const { id } = this.#holder ?? {};
    const newest = this.#next ?? this.#current;
    if (id === undefined || newest?.holderId === id) return;
    // Under another id nothing that the old stream acknowledges counts.
    if (newest || !this.#cancelRetry) this.#open();
  }

  async acknowledge(text: string): Promise<void> {
    const session = this.#current;
    if (!session || session.isOver) throw new Error('there is no stream to acknowledge on');
    if (session.call.writableLength >= UNSENT_MAX) throw new Error('too many acknowledgements wait to be sent');
    session.call.write({ verifierId: '', cursor: null, acknowledgement: text });
  }

  #open(): void {
    this.#cancelRetry?.();
    this.#cancelRetry = undefined;
    const { id, cursor } = this.#holder ?? {};
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
    const session: Session = { call, holderId: id, isOpen: false, isOver: false, cancelSteady: () => undefined };
    this.#next = session;
    call.on('data', (response) => this.#hear(session, response));
    call.on('error', (error) => this.#over(session, error));
    call.on('end', () => this.#over(session, new Error('the server ended the stream')));
    call.write({ verifierId: id, cursor: cursor ?? null, acknowledgement: '' });
  }

  #hear(session: Session, { message, renew, closing }: WatchResponse): void {
    if (this.#holder === undefined) return;
    if (this.#next === session) this.#takeOver(session);
    if (message !== '') this.#onMessage(message, renew);
    else if (renew) this.#holder.renew();
    if (closing && this.#current === session && !this.#next) this.#open();
  }

  /** The new stream has been answered, so nothing is missed when the old one ends. */
  #takeOver(session: Session): void {
    const old = this.#current;
    this.#next = undefined;
    this.#current = session;
    session.isOpen = true;
    // One that ends soon is a failure like the one before.
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
    else return; // told to end
    this.#failed(error);
  }

  #failed(error: Error): void {
    if (this.#holder === undefined) return;
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
