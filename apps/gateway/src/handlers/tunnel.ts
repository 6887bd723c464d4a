import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { Socket } from 'node:net';
import type { DenialReason } from '@latchkey/contracts';
import { type ErrorResponse, type ResponsePolicy, readResponseHead, sendErrorAndClose } from '../http/index.js';
import {
  CLOSE_REVOKED,
  CLOSE_UNAVAILABLE,
  closeFrame,
  FrameBoundary,
  type OpenExchanges,
  type Timed,
} from '../streams/index.js';
import { refusalFor } from './exchange.js';

/** A WebSocket handshake that may be forwarded. */
export interface TunnelPlan {
  readonly origin: string;
  readonly path: string;
  /** Name and value by turns, with the `Sec-WebSocket-*` of the caller. */
  readonly headers: string[];
  readonly requestId: string;
  readonly timeoutMs: number;
  readonly policy: ResponsePolicy;
  readonly watch?: (cut: (reason: DenialReason) => void) => () => void;
}

/** How long a caller may take to read its close frame. */
const FAREWELL_MS = 1_000;
const HANDSHAKE_BODY_BYTES_MAX = 64 * 1024;

/** A WebSocket between a caller and an upstream: bytes both ways, ended with its token. */
export class Tunnel implements Timed {
  readonly endless = true;
  readonly #boundary = new FrameBoundary();
  #request: ClientRequest | undefined;
  #upstream: Socket | undefined;
  #unwatch: (() => void) | undefined;
  #joined = false;
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
    // From here on: the upstream may take its time to agree.
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
    request.on('timeout', () => request.destroy(Object.assign(new Error('no answer'), { code: 'ETIMEDOUT' })));
    request.on('error', (error: NodeJS.ErrnoException) => {
      if (this.#over) return;
      this.onFailure(error, error.code ?? '');
      this.#refuse(refusalFor(error.code ?? '', plan.timeoutMs));
    });
    request.on('upgrade', (answer, socket, head) => this.#join(answer, socket as Socket, head));
    request.on('response', (answer) => this.#passRefusal(answer));
    request.end();
  }

  /** The upstream has agreed: from here on both sides speak WebSocket. */
  #join(answer: IncomingMessage, upstream: Socket, head: Buffer): void {
    const { caller, plan } = this;
    this.#upstream = upstream;
    upstream.on('error', () => this.#end());
    upstream.on('close', () => this.#end());
    if (this.#over) return void upstream.destroy();
    if (answer.headers.upgrade?.toLowerCase() !== 'websocket') {
      this.#refuse(refusalFor('', plan.timeoutMs));
      return;
    }
    this.#joined = true;
    const { headers } = readResponseHead(answer.headersDistinct, 101, plan.policy, plan.requestId);
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

  /** The upstream has answered without agreeing: its answer goes to the caller, and the connection ends. */
  #passRefusal(answer: IncomingMessage): void {
    const chunks: Buffer[] = [];
    let size = 0;
    answer.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size <= HANDSHAKE_BODY_BYTES_MAX) chunks.push(chunk);
      else answer.destroy();
    });
    answer.on('close', () => {
      if (this.#over) return;
      const status = answer.statusCode ?? 502;
      const { headers } = readResponseHead(answer.headersDistinct, 204, this.plan.policy, this.plan.requestId);
      const body = Buffer.concat(chunks);
      const head = `HTTP/1.1 ${status} ${answer.statusMessage ?? ''}\r\n${lines(headers)}content-length: ${body.length}\r\nconnection: close\r\n\r\n`;
      this.caller.write(head, 'latin1');
      this.caller.end(body);
      this.#release();
    });
  }

  #refuse(refusal: ErrorResponse): void {
    this.#release();
    sendErrorAndClose(this.caller, refusal, this.plan.requestId);
  }

  #cut(reason: DenialReason): void {
    if (this.#over) return;
    if (!this.#joined) {
      this.#refuse(
        reason === 'unavailable'
          ? { code: 'unavailable', detail: 'The token cannot be checked now. Try again shortly.' }
          : { code: 'invalid_token', detail: 'The token stopped being accepted.' },
      );
      return;
    }
    this.#release();
    // Inside a frame a close frame would be read as its content.
    if (!this.#boundary.between) return void this.caller.destroy();
    const code = reason === 'unavailable' ? CLOSE_UNAVAILABLE : CLOSE_REVOKED;
    this.caller.end(closeFrame(code, reason === 'unavailable' ? 'unavailable' : 'token no longer accepted'));
    setTimeout(() => this.caller.destroy(), FAREWELL_MS).unref();
  }

  /** Ends all but the caller's own connection. */
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

  /** A WebSocket may be silent for as long as its token lasts. */
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
