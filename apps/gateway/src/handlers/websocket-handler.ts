import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Logger } from '@latchkey/runtime';
import type { Verifier } from '@latchkey/verifier';
import type { AuthorizationRequest, Checks, Decision } from '../check/index.js';
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
import { authorizationRequestOf, requirementOf, whenDecided } from './gate.js';
import { watchWith } from './proxy-handler.js';
import { Tunnel } from './tunnel.js';

export interface WebSocketDeps {
  readonly checks: Checks;
  readonly verifier: Pick<Verifier, 'watch'>;
  readonly open: OpenExchanges;
  readonly logger: Logger;
}

export interface Handshake {
  readonly req: IncomingMessage;
  readonly socket: Socket;
  /** Bytes received after the handshake's head. */
  readonly early: Buffer;
  readonly target: Target;
  readonly head: RequestHead;
  readonly route: Route;
}

/** WebSocket handshakes (RFC 6455 section 4) on routes: checked as a GET, then tunnelled to the upstream. */
export class WebSocketHandler {
  constructor(private readonly deps: WebSocketDeps) {}

  handle(handshake: Handshake): void {
    const { route, head, target, socket } = handshake;
    const refuse = (error: ErrorResponse) => sendErrorAndClose(socket, error, head.requestId);
    if (head.chunked || (head.contentLength !== undefined && head.contentLength !== '0'))
      return void refuse({ code: 'invalid_request', detail: 'A WebSocket handshake must not have a body.' });
    if (route.public) return void this.#connect(handshake, undefined, undefined);
    const required = requirementOf(route, 'GET', target.path);
    if ('error' in required) return void refuse(required.error);
    if (route.mcp) return void refuse({ code: 'invalid_request', detail: 'MCP over WebSocket is not supported.' });
    const request = authorizationRequestOf(route, 'GET', head, required.requirement);
    whenDecided(
      this.deps.checks,
      request,
      {},
      (decision) => (decision.allowed ? this.#connect(handshake, decision, request) : refuse(decision.error)),
      (error) => {
        this.deps.logger.error({ err: error, requestId: head.requestId }, 'an upgrade failed');
        refuse({ code: 'internal', detail: 'The gateway failed; see its log for this requestId.' });
      },
    );
  }

  #connect(
    { socket, early, target, head, route }: Handshake,
    allowed: Extract<Decision, { allowed: true }> | undefined,
    request: AuthorizationRequest | undefined,
  ): void {
    const path = route.upstreamPath(target.path);
    if (path === undefined) {
      const detail = "Path parameters (;…) are not allowed inside the route's stripped prefix.";
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
        ...(allowed && request ? { watch: watchWith(verifier, allowed.secret, request) } : {}),
      },
      open,
      (error, code) =>
        logger.warn({ route: route.name, requestId: head.requestId, code, reason: error.message }, 'upstream failed'),
    ).start();
  }
}
