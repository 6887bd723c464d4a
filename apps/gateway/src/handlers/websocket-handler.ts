import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Logger } from '@latchkey/runtime';
import type { Checks, Decision, Inquiry, Verifying } from '../check/index.js';
import {
  type ErrorResponse,
  forwardedHeaders,
  pushIdentity,
  type RequestHead,
  sendErrorAndClose,
  type Target,
} from '../http/index.js';
import type { Route } from '../routes/index.js';
import type { OpenExchanges } from '../streams/index.js';
import { askedBy, inquiryOf, whenDecided } from './gate.js';
import { watchWith } from './proxy-handler.js';
import { Tunnel } from './tunnel.js';

export interface WebSocketDeps {
  readonly checks: Checks;
  readonly verifier: Pick<Verifying, 'watch'>;
  readonly open: OpenExchanges;
  readonly logger: Logger;
}

export interface Handshake {
  readonly req: IncomingMessage;
  readonly socket: Socket;
  /** What came after the handshake's head already. */
  readonly early: Buffer;
  readonly target: Target;
  readonly head: RequestHead;
  readonly route: Route;
}

/** WebSocket handshakes (RFC 6455 section 4) on routes: checked as a GET, then joined to the upstream. */
export class WebSocketHandler {
  constructor(private readonly deps: WebSocketDeps) {}

  handle(handshake: Handshake): void {
    const { route, head, target, socket } = handshake;
    const refuse = (refusal: ErrorResponse) => sendErrorAndClose(socket, refusal, head.requestId);
    if (head.chunked || (head.contentLength !== undefined && head.contentLength !== '0'))
      return void refuse({ code: 'invalid_request', detail: 'A WebSocket handshake has no body.' });
    if (route.public) return void this.#join(handshake, undefined, undefined);
    const asked = askedBy(route, 'GET', target.path);
    if ('refusal' in asked) return void refuse(asked.refusal);
    if (route.mcp) return void refuse({ code: 'invalid_request', detail: 'MCP is not offered over WebSocket.' });
    const inquiry = inquiryOf(route, 'GET', head, asked.needs);
    whenDecided(
      this.deps.checks,
      inquiry,
      {},
      (decision) => (decision.allowed ? this.#join(handshake, decision, inquiry) : refuse(decision.refusal)),
      (error) => {
        this.deps.logger.error({ err: error, requestId: head.requestId }, 'an upgrade failed');
        refuse({ code: 'internal', detail: 'The gateway failed; its log names this requestId.' });
      },
    );
  }

  #join(
    { socket, early, target, head, route }: Handshake,
    allowed: Extract<Decision, { allowed: true }> | undefined,
    inquiry: Inquiry | undefined,
  ): void {
    const path = route.upstreamPath(target.path);
    if (path === undefined) {
      const detail = 'The path holds ";" where its prefix ends.';
      return void sendErrorAndClose(socket, { code: 'invalid_request', detail }, head.requestId);
    }
    const headers = forwardedHeaders(
      head,
      { authorization: route.forwardAuthorization, session: false },
      route.stripPrefix,
    );
    if (allowed) pushIdentity(headers, allowed.principal);
    const { verifier, open, logger } = this.deps;
    new Tunnel(
      socket,
      early,
      {
        origin: route.origin,
        path: path + target.query,
        headers,
        requestId: head.requestId,
        timeoutMs: route.timeoutMs,
        policy: { trustedOrigin: route.trustedOrigin, maySetSession: false, ownCors: false },
        ...(allowed && inquiry ? { watch: watchWith(verifier, allowed.secret, inquiry) } : {}),
      },
      open,
      (error, code) =>
        logger.warn({ route: route.name, requestId: head.requestId, code, reason: error.message }, 'upstream failed'),
    ).start();
  }
}
