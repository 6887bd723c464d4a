import { randomBytes } from 'node:crypto';
import type { TokensMethods, WatchRequest, WatchResponse } from '@latchkey/contracts';
import { bearer, type Caller, renewalError, systemClock, tokensCaller } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { RenewalRefused, Verifier, WatchFeed } from '@latchkey/verifier';
import type { TokenService } from '../../src/app.js';

/** Addresses of replicas as one gRPC target: the first that accepts a connection is used. */
export const targetOf = (...services: TokenService[]): string => services.map(({ rpcAddress }) => rpcAddress).join(',');

export const newClaim = (): string => randomBytes(32).toString('base64url');

export interface ThirdParty {
  readonly verifier: Verifier;
  readonly feed: WatchFeed;
  readonly caller: Caller<TokensMethods>;
  /** Why streams were interrupted. */
  readonly interruptions: Error[];
  accepts(secret: string): Promise<boolean>;
  close(): Promise<void>;
}

/** A verifier as a third party embeds it, with an address and a token. */
export async function thirdParty(address: string, secret: string): Promise<ThirdParty> {
  const caller = tokensCaller({ address, authorization: bearer(secret), timeoutMs: 5_000 });
  const interruptions: Error[] = [];
  const feed = new WatchFeed({
    open: () => caller.watch(),
    clock: systemClock,
    onInterrupted: (error) => interruptions.push(error),
  });
  const verifier = new Verifier({
    name: 'theirs',
    newClaim,
    clock: systemClock,
    source: {
      lookup: (hash) => caller.lookup({ hash }),
      renew: (request) =>
        caller.renew(request).catch((error: Error) => {
          const rejection = renewalError(error);
          throw rejection ? new RenewalRefused(rejection, error.message) : error;
        }),
      release: async (request) => void (await caller.release(request)),
    },
    feed,
  });
  await verifier.start();
  return {
    verifier,
    feed,
    caller,
    interruptions,
    accepts: async (token) => (await verifier.verify(token, { scopes: [] })).allowed,
    close: async () => {
      await verifier.stop();
      caller.close();
    },
  };
}

/** A stream without a verifier, with all responses received. */
export interface RawStream {
  readonly responses: WatchResponse[];
  /** How it ended; undefined while it is open. */
  readonly ended: { code: number; details: string } | undefined;
  readonly call: ReturnType<Caller<TokensMethods>['watch']>;
  send(request: Partial<WatchRequest>): void;
}

export function rawStream(caller: Caller<TokensMethods>, first?: Partial<WatchRequest>): RawStream {
  const call = caller.watch();
  const responses: WatchResponse[] = [];
  let ended: RawStream['ended'];
  call.on('data', (response: WatchResponse) => responses.push(response));
  call.on('error', () => undefined);
  call.on('status', ({ code, details }) => {
    ended = { code, details };
  });
  const send = (request: Partial<WatchRequest>) =>
    void call.write({ verifierId: '', cursor: null, acknowledgement: '', ...request });
  if (first) send(first);
  return {
    responses,
    call,
    send,
    get ended() {
      return ended;
    },
  };
}

export const isOpen = (one: ThirdParty): Promise<unknown> => waitFor(() => one.feed.isOpen);
