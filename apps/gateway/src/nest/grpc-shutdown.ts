import type { Http2Server, ServerHttp2Session } from 'node:http2';
import { Server as NetServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Server } from '@grpc/grpc-js';

/** Longest wait for a caller that does not respond. */
const TOLD_MS = 1_000;
/** GOAWAY without an error and with the greatest id of a stream: none that is on its way is refused (RFC 9113 section 6.8). */
const GOAWAY = Buffer.from('0000080700000000007fffffff00000000', 'hex');

type Listeners = ReadonlyMap<Http2Server, { readonly sessions: ReadonlySet<ServerHttp2Session> }>;

/** The graceful shutdown of a gRPC server in two steps, so that calls that are on their way are not lost. */
export class GrpcShutdown {
  readonly #listeners: Listeners;
  readonly #sockets = new Set<Socket>();
  #left: Promise<void> | undefined;

  /** @param server that is bound */
  constructor(private readonly server: Server) {
    // Not exposed by grpc-js.
    this.#listeners = (server as unknown as { readonly http2Servers: Listeners }).http2Servers;
    for (const listener of this.#listeners.keys())
      listener.on('connection', (socket: Socket) => {
        this.#sockets.add(socket);
        socket.once('close', () => this.#sockets.delete(socket));
      });
  }

  /**
   * Closes the listener and tells each caller to leave. Resolves once each has responded to a PING behind that: what it sends
   * from then on goes over another connection.
   */
  leave(): Promise<void> {
    this.#left ??= this.#leave();
    return this.#left;
  }

  async #leave(): Promise<void> {
    const told: Promise<void>[] = [];
    for (const [listener, { sessions }] of this.#listeners) {
      // Http2Server's own close would close the sessions too.
      NetServer.prototype.close.call(listener);
      // Written beside the sessions: Node takes no new stream once a session has sent its own GOAWAY. SETTINGS comes first.
      for (const socket of this.#sockets) if (socket.bytesWritten > 0) socket.write(GOAWAY);
      for (const session of sessions)
        told.push(
          new Promise((resolve) => {
            session.once('close', resolve);
            if (session.closed || session.destroyed || !session.ping(() => resolve())) resolve();
          }),
        );
    }
    await Promise.race([Promise.all(told), sleep(TOLD_MS, undefined, { ref: false })]);
  }

  /** Leaves, then takes no more calls. Resolves once none is open, or after `ms`, when those that are left break off. */
  async drain(ms: number): Promise<void> {
    const drained = this.leave().then(() => new Promise((resolve) => this.server.tryShutdown(resolve)));
    await Promise.race([drained, sleep(ms, undefined, { ref: false })]);
    this.server.forceShutdown();
  }
}
