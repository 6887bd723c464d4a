import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { Socket } from 'node:net';
import type { DenialReason } from '@latchkey/contracts';
import { errorForCut, isTemporary } from '../check/index.js';
import { type ErrorResponse, type ResponsePolicy, readResponseHead, sendErrorAndClose } from '../http/index.js';
import {
  CLOSE_REVOKED,
  CLOSE_UNAVAILABLE,
  closeFrame,
  FrameBoundary,
  type OpenExchanges,
  type Timed,
} from '../streams/index.js';
import { upstreamError } from './exchange.js';

/** A WebSocket handshake that was allowed. */
export interface TunnelPlan {
  readonly origin: string;
  readonly path: string;
  /** Alternating names and values, with the caller's `Sec-WebSocket-*`. */
  readonly headers: string[];
  readonly requestId: string;
  readonly timeoutMs: number;
  readonly policy: ResponsePolicy;
  readonly watch?: (cut: (reason: DenialReason) => void) => () => void;
}

/** How long a caller has to read its close frame. */
const CLOSE_FRAME_MS = 1_000;
const HANDSHAKE_BODY_BYTES_MAX = 64 * 1024;

/** A WebSocket between a caller and an upstream: bytes both ways, closed once its token becomes invalid. */
export class Tunnel implements Timed {
  readonly endless = true;
  readonly #boundary = new FrameBoundary();
  #request: ClientRequest | undefined;
  #upstream: Socket | undefined;
  #unwatch: (() => void) | undefined;
  #connected = false;
  #over = false;

  constructor(
    private readonly caller: Socket,
    private readonly early: Buffer,
    private readonly plan: TunnelPlan,
    private readonly open: OpenExchanges,
    private readonly onFailure: (error: Error, code: string) => void,
  ) {}

  start(): void {
    const { plan, caller } = this;
    const url = new URL(plan.origin);
    this.open.add(this);
    caller.on('close', () => this.#end());
    // Before the handshake, which the upstream can delay.
    if (plan.watch) {
      const unwatch = plan.watch((reason) => this.#cut(reason));
      if (this.#over) return void unwatch();
      this.#unwatch = unwatch;
    }
    const request = (url.protocol === 'https:' ? httpsRequest : httpRequest)({
      host: url.hostname.replace(/^\[|\]$/g, ''),
      port: url.port || (url.protocol === 'https:' ? 443 : 80),
      method: 'GET',
      path: plan.path,
      headers: ['host', url.host, 'connection', 'Upgrade', 'upgrade', 'websocket', ...plan.headers],
      agent: false,
      timeout: plan.timeoutMs,
    });
    this.#request = request;
    request.on('timeout', () => request.destroy(Object.assign(new Error('no response'), { code: 'ETIMEDOUT' })));
    request.on('error', (error: NodeJS.ErrnoException) => {
      if (this.#over) return;
      this.onFailure(error, error.code ?? '');
      this.#refuse(upstreamError(error.code ?? '', plan.timeoutMs));
    });
    request.on('upgrade', (response, socket, head) => this.#connect(response, socket as Socket, head));
    request.on('response', (response) => this.#passResponse(response));
    request.end();
  }

  /** The upstream has accepted the handshake. */
  #connect(response: IncomingMessage, upstream: Socket, head: Buffer): void {
    const { caller, plan } = this;
    this.#upstream = upstream;
    upstream.on('error', () => this.#end());
    upstream.on('close', () => this.#end());
    if (this.#over) return void upstream.destroy();
    if (response.headers.upgrade?.toLowerCase() !== 'websocket') {
      this.#refuse(upstreamError('', plan.timeoutMs));
      return;
    }
    this.#connected = true;
    const { headers } = readResponseHead(response.headersDistinct, 101, plan.policy, plan.requestId);
    caller.write(
      `HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n${lines(headers)}\r\n`,
      'latin1',
    );
    upstream.setTimeout(0);
    upstream.on('data', (chunk: Buffer) => {
      this.#boundary.pass(chunk);
      if (!caller.write(chunk)) upstream.pause();
    });
    caller.on('drain', () => upstream.resume());
    upstream.on('end', () => caller.end());
    if (head.length > 0) {
      this.#boundary.pass(head);
      caller.write(head);
    }
    if (this.early.length > 0) upstream.write(this.early);
    caller.pipe(upstream);
  }

  /** The upstream has not accepted the handshake: its response goes to the caller, and the connection closes. */
  #passResponse(response: IncomingMessage): void {
    const chunks: Buffer[] = [];
    let size = 0;
    response.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size <= HANDSHAKE_BODY_BYTES_MAX) chunks.push(chunk);
      else response.destroy();
    });
    response.on('close', () => {
      if (this.#over) return;
      const status = response.statusCode ?? 502;
      const { headers } = readResponseHead(response.headersDistinct, 204, this.plan.policy, this.plan.requestId);
      const body = Buffer.concat(chunks);
      const head = `HTTP/1.1 ${status} ${response.statusMessage ?? ''}\r\n${lines(headers)}content-length: ${body.length}\r\nconnection: close\r\n\r\n`;
      this.caller.write(head, 'latin1');
      this.caller.end(body);
      this.#release();
    });
  }

  #refuse(error: ErrorResponse): void {
    this.#release();
    sendErrorAndClose(this.caller, error, this.plan.requestId);
  }

  #cut(reason: DenialReason): void {
    if (this.#over) return;
    if (!this.#connected) {
      this.#refuse(errorForCut(reason));
      return;
    }
    this.#release();
    // Inside a frame a close frame would be read as payload.
    if (!this.#boundary.between) return void this.caller.destroy();
    this.caller.end(
      isTemporary(reason)
        ? closeFrame(CLOSE_UNAVAILABLE, reason)
        : closeFrame(CLOSE_REVOKED, 'token no longer accepted'),
    );
    setTimeout(() => this.caller.destroy(), CLOSE_FRAME_MS).unref();
  }

  /** Releases everything but the caller's connection. */
  #release(): void {
    this.#over = true;
    this.open.remove(this);
    this.#unwatch?.();
    this.caller.unpipe();
    this.#upstream?.destroy();
    this.#request?.destroy();
  }

  #end(): void {
    if (this.#over) return;
    this.#release();
    this.caller.destroySoon();
  }

  /** A WebSocket can be silent as long as its token is valid. */
  tick(): void {
    return;
  }

  abandon(): void {
    if (this.#over) return;
    if (this.#unwatch) this.#cut('unavailable');
    else this.#end();
  }
}

function lines(headers: readonly string[]): string {
  let text = '';
  for (let i = 0; i < headers.length; i += 2) text += `${headers[i]}: ${headers[i + 1]}\r\n`;
  return text;
}
