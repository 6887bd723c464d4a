import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebSocket, WebSocketServer } from 'ws';
import { type Caller, sees } from './caller.js';
import type { Store } from './store.js';

const MESSAGE_BYTES_MAX = 64 * 1024;
const SOCKETS_MAX = 1_000;
/** A socket with more unsent data than this is closed. */
const BUFFERED_BYTES_MAX = 1024 * 1024;
const PING_MS = 30_000;

/** The WebSocket endpoint: sends `hello`, echoes messages, and sends the document changes that the caller can see. */
export class Sockets {
  readonly #server = new WebSocketServer({ noServer: true, maxPayload: MESSAGE_BYTES_MAX, perMessageDeflate: false });
  readonly #unanswered = new WeakSet<WebSocket>();
  readonly #pinger = setInterval(() => this.#ping(), PING_MS).unref();

  constructor(readonly store: Store) {}

  /** True while another socket can be opened. */
  get hasCapacity(): boolean {
    return this.#server.clients.size < SOCKETS_MAX;
  }

  /**
   * Takes over an upgrade request. Text comes back as `{"type":"echo","data":…}`, binary as it is.
   * @param project whose changes are sent, or null for all that the caller can see.
   */
  accept(request: IncomingMessage, socket: Duplex, head: Buffer, caller: Caller, project: string | null): void {
    this.#server.handleUpgrade(request, socket, head, (ws) => {
      const send = (message: string | Buffer, binary = false) => {
        if (ws.readyState !== WebSocket.OPEN) return;
        if (ws.bufferedAmount > BUFFERED_BYTES_MAX) ws.terminate();
        else ws.send(message, { binary });
      };
      const stopListening = this.store.onChange((change) => {
        if ((project === null || change.projectId === project) && sees(caller, change.projectId)) {
          send(JSON.stringify({ type: 'change', change }));
        }
      });
      ws.on('pong', () => this.#unanswered.delete(ws));
      ws.on('message', (data: Buffer, binary) =>
        binary ? send(data, true) : send(JSON.stringify({ type: 'echo', data: data.toString('utf8') })),
      );
      // ws closes the socket with the fitting code itself (1009 for a message too long); nothing is left to do.
      ws.on('error', () => ws.terminate());
      ws.on('close', stopListening);
      send(JSON.stringify({ type: 'hello', caller, project }));
    });
  }

  /** Closes every socket with 1001; those that do not close within the time given are terminated. */
  async close(graceMs: number): Promise<void> {
    clearInterval(this.#pinger);
    const open = [...this.#server.clients];
    for (const ws of open) ws.close(1001, 'the demo upstream stops');
    const cut = setTimeout(() => open.forEach((ws) => void ws.terminate()), graceMs);
    await Promise.all(
      open.map((ws) => ws.readyState === WebSocket.CLOSED || new Promise((done) => ws.once('close', done))),
    );
    clearTimeout(cut);
    this.#server.close();
  }

  #ping(): void {
    for (const ws of this.#server.clients) {
      if (this.#unanswered.has(ws)) ws.terminate();
      this.#unanswered.add(ws);
      ws.ping();
    }
  }
}
