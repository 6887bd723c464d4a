import type { IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';

/**
 * A request's body for the upstream, read as fast as the upstream accepts it. The request itself is never passed on:
 * destroying it would close the caller's connection before an error response.
 */
export class RequestBody extends Readable {
  /** Since when the next bytes are awaited, by `performance.now()`; 0 while none are. */
  awaitedSinceMs = 0;

  constructor(private readonly req: IncomingMessage) {
    super({ highWaterMark: 64 * 1024 });
    req.pause();
    req.on('data', (chunk: Buffer) => {
      this.awaitedSinceMs = 0;
      if (!this.push(chunk)) req.pause();
    });
    req.on('end', () => {
      this.awaitedSinceMs = 0;
      this.push(null);
    });
    req.on('close', () => {
      if (!req.complete) this.destroy(new Error('the caller disconnected before the body was complete'));
    });
  }

  override _read(): void {
    if (this.awaitedSinceMs === 0) this.awaitedSinceMs = performance.now();
    this.req.resume();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    // The rest is discarded, so that the connection stays usable for the response.
    this.req.removeAllListeners('data');
    this.req.resume();
    callback(error);
  }
}
