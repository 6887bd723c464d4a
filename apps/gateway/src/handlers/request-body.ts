import type { IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';

/**
 * A request's body for the upstream, pulled as fast as the upstream takes it. The request itself is never handed out:
 * destroying it would close the caller's connection, and the caller could not be told why.
 */
export class RequestBody extends Readable {
  /** When the last piece came, or was last asked for; `performance.now()`, 0 while nothing is awaited. */
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
      if (!req.complete) this.destroy(new Error('the caller went away before the body was complete'));
    });
  }

  override _read(): void {
    if (this.awaitedSinceMs === 0) this.awaitedSinceMs = performance.now();
    this.req.resume();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    // What still comes is thrown away, so that the connection stays usable for the answer.
    this.req.removeAllListeners('data');
    this.req.resume();
    callback(error);
  }
}
