import type { IncomingMessage, ServerResponse } from 'node:http';
import { DOOR_HEADER, doorValue } from '@latchkey/contracts';
import type { Logger } from '@latchkey/runtime';
import { forwardedHeaders, type RequestHead, type Target } from '../http/index.js';
import type { OpenExchanges } from '../streams/index.js';
import { Exchange, type ExchangeLimits } from './exchange.js';
import type { Upstream } from './upstreams.js';

export interface ManagementParts {
  /** The token-service's HTTP door. */
  readonly upstream: Upstream;
  readonly rpcSecret: string;
  readonly open: OpenExchanges;
  readonly limits: ExchangeLimits;
  readonly logger: Logger;
}

/** Longer than the token-service waits for a revocation to be confirmed. */
const TIMEOUT_MS = 120_000;

/** Passes the management API on as it came, with proof that it came through this door; the token-service checks it. */
export class Management {
  readonly #door: string;

  constructor(private readonly parts: ManagementParts) {
    this.#door = doorValue(parts.rpcSecret);
  }

  handle(req: IncomingMessage, res: ServerResponse, head: RequestHead, target: Target, expectsContinue: boolean): void {
    const headers = forwardedHeaders(head, { authorization: true, session: true }, '');
    headers.push(DOOR_HEADER, this.#door);
    if (head.contentLength !== undefined) headers.push('content-length', head.contentLength);
    const { upstream, open, limits, logger } = this.parts;
    new Exchange(
      req,
      res,
      {
        upstream,
        path: target.path + target.query,
        headers,
        hasBody: head.chunked || (head.contentLength !== undefined && head.contentLength !== '0'),
        requestId: head.requestId,
        timeoutMs: TIMEOUT_MS,
        policy: { trustedOrigin: true, maySetSession: true, ownCors: false, added: ['x-request-id', head.requestId] },
        unavailableDetail: 'The management API is away. Try again shortly; tokens go on being checked meanwhile.',
        expectsContinue,
      },
      open,
      limits,
      (error, code) => logger.warn({ requestId: head.requestId, code, reason: error.message }, 'token-service failed'),
    ).start();
  }
}
