import { type Metadata, type ServerDuplexStream, status } from '@grpc/grpc-js';
import type { Cursor, WatchRequest, WatchResponse } from '@latchkey/contracts';
import type { Clock } from '@latchkey/runtime';
import { Controller, Inject } from '@nestjs/common';
import { GrpcStreamMethod } from '@nestjs/microservices';
import { Observable, type Subscriber } from 'rxjs';
import { CLOCK } from '../config.js';
import { CallableBy, callOf, refuse } from '../rpc/index.js';
import { HoldersService } from './holders.service.js';
import { InvalidationService } from './invalidation.service.js';
import { checkCursor, checkVerifierId, LeaseRefused } from './leases.js';
import type { LeaseCaller } from './types.js';
import { HOLDER_STREAMS_MAX, type WatchRejection } from './watch.hub.js';
import { type WatchEnd, WatchStream } from './watch.stream.js';

/** How long a call can take to send its first message. */
const FIRST_MESSAGE_MS = 5_000;

const REJECTIONS: Record<WatchRejection, [status, string]> = {
  too_many: [
    status.RESOURCE_EXHAUSTED,
    `too_many: an owner's tokens can have at most ${HOLDER_STREAMS_MAX} streams here`,
  ],
  no_lease: [status.FAILED_PRECONDITION, 'verifierId must have a lease: call Renew first'],
  foreign: [status.PERMISSION_DENIED, 'this verifier id belongs to another caller'],
  stopping: [status.UNAVAILABLE, 'this server is stopping; open the stream again'],
};

const ENDS: Record<WatchEnd, [status, string]> = {
  replaced: [status.ABORTED, 'this verifier has opened another stream'],
  no_lease: [status.FAILED_PRECONDITION, 'the lease of this verifier has ended; call Renew, then open another stream'],
  rejected: [status.UNAUTHENTICATED, 'the caller is no longer accepted'],
  unchecked: [status.UNAVAILABLE, 'checking the caller failed or timed out; open the stream again'],
  stopped: [status.UNAVAILABLE, 'this server is stopping; open the stream again'],
};

type WatchCall = ServerDuplexStream<WatchRequest, WatchResponse>;

/** The gRPC endpoint of streams. */
@Controller()
export class WatchRpc {
  constructor(
    private readonly invalidations: InvalidationService,
    private readonly holders: HoldersService,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  @GrpcStreamMethod('Tokens', 'Watch')
  @CallableBy('gateway', 'token')
  async watch(requests: Observable<WatchRequest>, metadata: Metadata, call: WatchCall): Promise<Observable<never>> {
    const { caller, callerNow } = callOf(metadata)!;
    const leaseCaller = await this.holders.leaseCaller(caller);
    const release = this.invalidations.watch.admit(leaseCaller.holder);
    if (typeof release === 'string') throw refuse(...REJECTIONS[release]);
    // Counted until its last message has been sent or its connection is closed.
    for (const event of ['cancelled', 'finish', 'close']) call.once(event, release);
    if (call.cancelled) release();
    return new Observable((subscriber) => this.#serve(requests, call, leaseCaller, callerNow, subscriber));
  }

  /** Messages bypass the observable, which only ends the call: it would queue without a limit. */
  #serve(
    requests: Observable<WatchRequest>,
    call: WatchCall,
    caller: LeaseCaller,
    recheck: NonNullable<ReturnType<typeof callOf>>['callerNow'],
    subscriber: Subscriber<never>,
  ): () => void {
    const hub = this.invalidations.watch;
    let stream: WatchStream | undefined;
    const end = (error: unknown) => subscriber.error(error);
    const cancelTimeout = this.clock.after(FIRST_MESSAGE_MS, () =>
      end(refuse(status.DEADLINE_EXCEEDED, 'the first message, with verifierId and cursor, did not arrive in time')),
    );
    const start = async ({ verifierId, cursor }: WatchRequest) => {
      checkStart(verifierId, cursor);
      stream = new WatchStream({
        verifierId,
        caller,
        recheck,
        clock: this.clock,
        write: (response) => call.write(response),
        end: (why) => end(refuse(...ENDS[why])),
      });
      call.on('drain', () => stream!.onDrained());
      const rejection = await hub.start(stream, cursor);
      if (rejection) throw refuse(...REJECTIONS[rejection]);
    };
    const subscription = requests.subscribe({
      next: (request) => {
        if (stream) {
          hub.acknowledge(stream, request.acknowledgement);
          return;
        }
        cancelTimeout();
        // Further messages stay in the connection's own, bounded buffers until the stream is open.
        call.pause();
        start(request).then(() => call.resume(), end);
      },
      error: end,
      complete: () => subscriber.complete(),
    });
    call.resume();
    return () => {
      cancelTimeout();
      subscription.unsubscribe();
      if (stream) hub.remove(stream);
    };
  }
}

function checkStart(verifierId: string, cursor: Cursor | null): void {
  try {
    checkVerifierId(verifierId);
    checkCursor(cursor);
  } catch (error) {
    if (error instanceof LeaseRefused) throw refuse(status.INVALID_ARGUMENT, error.message);
    throw error;
  }
}
