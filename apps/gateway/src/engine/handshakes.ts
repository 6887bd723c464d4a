import { constants } from 'node:crypto';
import type { Socket } from 'node:net';
import { createServer, type Server, type TLSSocket } from 'node:tls';
import { newId } from '@latchkey/runtime';
import { renderError } from '../http/index.js';

/** A certificate with those that lead to its authority, and its private key; both in PEM. */
export interface TlsCredentials {
  readonly cert: string;
  readonly key: string;
}

/** The connections of a TLS port whose handshake is not complete. */
export class Handshakes {
  /** It listens nowhere: connections are handed to it. */
  readonly #server: Server;
  /** With the time at which each was accepted. */
  readonly #open = new Map<Socket, number>();

  constructor(credentials: TlsCredentials, onSecure: (socket: TLSSocket) => void) {
    // Without another protocol in ALPN, a caller that speaks HTTP/2 only is told so.
    this.#server = createServer({ ...contextOf(credentials), ALPNProtocols: ['http/1.1'] }, (secure) => {
      // Not exposed by Node: the connection that TLS is spoken over.
      const { _parent: socket } = secure as unknown as { readonly _parent: Socket };
      this.#open.delete(socket);
      secure.allowHalfOpen = true;
      // Node's own resets no TLS, and many callers take an end without close_notify for a whole response.
      secure.resetAndDestroy = () => {
        socket.resetAndDestroy();
        return secure;
      };
      onSecure(secure);
    });
    this.#server.on('tlsClientError', (_, secure) => secure.destroy());
  }

  get size(): number {
    return this.#open.size;
  }

  /** For the handshakes that begin from now on. */
  use(credentials: TlsCredentials): void {
    this.#server.setSecureContext(contextOf(credentials));
  }

  /** @param socket nothing of which was read */
  add(socket: Socket, nowMs: number): void {
    this.#open.set(socket, nowMs);
    const onEnd = () => socket.destroy();
    socket.on('error', onEnd);
    socket.once('end', onEnd);
    socket.once('close', () => this.#open.delete(socket));
    socket.once('data', (first: Buffer) => {
      if (first[0] !== HANDSHAKE) return refusePlain(socket, first);
      socket.off('end', onEnd);
      // Who leaves within the handshake is gone.
      socket.allowHalfOpen = false;
      socket.pause();
      socket.unshift(first);
      this.#server.emit('connection', socket);
    });
  }

  /** Closes those that were accepted more than `limitMs` ago. */
  tick(nowMs: number, limitMs: number): void {
    for (const [socket, sinceMs] of this.#open) if (nowMs - sinceMs >= limitMs) socket.destroy();
  }

  close(): void {
    for (const socket of this.#open.keys()) socket.destroy();
  }
}

/** The type of a record that begins a handshake (RFC 8446 section 5.1). */
const HANDSHAKE = 0x16;

const contextOf = ({ cert, key }: TlsCredentials) =>
  ({ cert, key, minVersion: 'TLSv1.2', secureOptions: constants.SSL_OP_NO_RENEGOTIATION }) as const;

/** A caller that does not speak TLS: HTTP gets a response that it can read. What it has sent was readable by others. */
function refusePlain(socket: Socket, first: Buffer): void {
  if (!/^[A-Z]+ /.test(first.toString('latin1', 0, 16))) return void socket.destroy();
  const { status, headers, body } = renderError(
    { code: 'invalid_request', detail: 'This port speaks TLS: use https. A token that was sent without is exposed.' },
    newId(),
  );
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.end(`HTTP/1.1 ${status} Bad Request\r\n${lines.join('')}connection: close\r\n\r\n${body}`);
  socket.resume();
}
