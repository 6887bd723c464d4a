import type { IncomingMessage, ServerResponse } from 'node:http';
import type { DenialReason } from '@latchkey/contracts';
import type { Logger } from '@latchkey/runtime';
import { rateHeaders } from '@latchkey/runtime';
import type { Verifier } from '@latchkey/verifier';
import type { AuthorizationRequest, Checks, Decision } from '../check/index.js';
import {
  type Credentials,
  corsHeaders,
  type ErrorResponse,
  forwardedHeaders,
  hasBody,
  preflightHeaders,
  pushIdentity,
  type RequestHead,
  type ResponsePolicy,
  sendError,
  type Target,
} from '../http/index.js';
import type { Route } from '../routes/index.js';
import { Exchange, type ExchangeDeps } from './exchange.js';
import { authorizationRequestOf, requirementOf, whenDecided } from './gate.js';
import { inspectMcp, type McpBody, readMcpBody } from './mcp-body.js';
import type { Upstream, Upstreams } from './upstreams.js';

export interface ProxyHandlerDeps extends Omit<ExchangeDeps, 'upstreamFailed'> {
  readonly checks: Checks;
  readonly verifier: Pick<Verifier, 'watch'>;
  readonly upstreams: Upstreams;
  readonly logger: Logger;
}

/** Shared by all requests to a route. */
interface Prepared {
  readonly upstream: Upstream;
  readonly policy: ResponsePolicy;
  readonly credentials: Credentials;
}

/** A request that was parsed and matched to a route. */
export interface Matched {
  readonly req: IncomingMessage;
  readonly res: ServerResponse;
  readonly method: string;
  readonly target: Target;
  readonly head: RequestHead;
  readonly route: Route;
  readonly expectsContinue: boolean;
}

type Allowed = Extract<Decision, { allowed: true }>;

/** The data path: a request to a route of the routes file is checked and forwarded, or refused. */
export class ProxyHandler {
  readonly #prepared = new WeakMap<Route, Prepared>();
  readonly #exchanges: ExchangeDeps;

  constructor(private readonly deps: ProxyHandlerDeps) {
    this.#exchanges = {
      ...deps,
      upstreamFailed: (requestId, error, code) =>
        deps.logger.warn({ requestId, code, reason: error.message }, 'upstream failed'),
    };
  }

  handle(matched: Matched): void {
    const { route, method, res, head, target } = matched;
    if (route.cors && method === 'OPTIONS' && head.origin !== undefined) {
      res.writeHead(204, preflightHeaders(route.cors, head.origin));
      return void res.end();
    }
    if (route.public) return void this.#forward(matched, undefined, undefined);
    const required = requirementOf(route, method, target.path);
    if ('error' in required) return void this.#refuse(matched, required.error);
    const request = authorizationRequestOf(route, method, head, required.requirement);
    if (route.mcp && method === 'POST') return void this.#handleMcp(matched, request);
    this.#decide(matched, request, (allowed) => this.#forward(matched, allowed, request));
  }

  /** Checks the token before it reads the body, then the scopes that the body requires. */
  #handleMcp(matched: Matched, request: AuthorizationRequest): void {
    const { route, head, req, res, expectsContinue } = matched;
    this.#decide(
      matched,
      request,
      ({ principal }) => {
        if (expectsContinue) res.writeContinue();
        readMcpBody(req, head, this.deps.bodyIdleMs)
          .then((read: McpBody) => {
            if ('error' in read) return this.#refuse(matched, read.error);
            const inspected = inspectMcp(read.text, route.tools, req.headers);
            if ('error' in inspected) return this.#refuse(matched, inspected.error);
            if ('notOffered' in inspected) {
              const detail = `The route ${route.name} offers no ${inspected.notOffered}.`;
              const denied = this.deps.checks.deny(request, 'insufficient_scope', principal.tokenId, { detail });
              return this.#refuse(matched, denied.error);
            }
            const scopes = [...new Set([...request.scopes, ...inspected.scopes])];
            const full = { ...request, scopes, uses: inspected.messages };
            this.#decide(matched, full, (allowed) => this.#forward(matched, allowed, full, inspected.body));
          })
          .catch((error: unknown) => this.#fault(matched, error));
      },
      { preliminary: true },
    );
  }

  #decide(
    matched: Matched,
    request: AuthorizationRequest,
    onAllowed: (allowed: Allowed) => void,
    options: { preliminary?: boolean } = {},
  ): void {
    whenDecided(
      this.deps.checks,
      request,
      options,
      (decision) => {
        if (decision.allowed) onAllowed(decision);
        else this.#refuse(matched, decision.error);
      },
      (error) => this.#fault(matched, error),
    );
  }

  #forward(
    matched: Matched,
    allowed: Allowed | undefined,
    request: AuthorizationRequest | undefined,
    body?: Buffer,
  ): void {
    const { route, head, target } = matched;
    const path = route.upstreamPath(target.path);
    if (path === undefined) {
      const detail = "Path parameters (;…) are not allowed inside the route's stripped prefix.";
      return void this.#refuse(matched, { code: 'invalid_request', detail });
    }
    const { upstream, policy, credentials } = this.#preparedFor(route);
    const headers = forwardedHeaders(head, credentials, route.stripPrefix);
    if (allowed) pushIdentity(headers, allowed.principal);
    if (head.contentLength !== undefined && !body) headers.push('content-length', head.contentLength);
    let extra: string[] | undefined;
    if (route.cors || allowed?.rate) {
      extra = route.cors ? corsHeaders(route.cors, head.origin) : [];
      if (allowed?.rate) extra.push(...Object.entries(rateHeaders(allowed.rate)).flat());
    }
    const plan = {
      upstream,
      path: target.query === '' ? path : path + target.query,
      headers,
      body,
      hasBody: hasBody(head),
      requestId: head.requestId,
      timeoutMs: route.timeoutMs,
      policy,
      extra,
      watch: allowed && request ? watchWith(this.deps.verifier, allowed.secret, request) : undefined,
      unavailableDetail: undefined,
      expectsContinue: matched.expectsContinue && !body,
    };
    new Exchange(matched.req, matched.res, plan, this.#exchanges).start();
  }

  #preparedFor(route: Route): Prepared {
    let prepared = this.#prepared.get(route);
    if (!prepared) {
      prepared = {
        upstream: this.deps.upstreams.get(route.origin),
        policy: { trustedOrigin: route.trustedOrigin, maySetSession: false, ownCors: route.cors !== undefined },
        credentials: { authorization: route.forwardAuthorization, session: false },
      };
      this.#prepared.set(route, prepared);
    }
    return prepared;
  }

  #refuse({ route, res, head }: Matched, error: ErrorResponse): void {
    const shared = route.cors ? corsHeaders(route.cors, head.origin) : [];
    const headers: Record<string, string> = { ...error.headers };
    for (let i = 0; i < shared.length; i += 2) headers[shared[i]!] = shared[i + 1]!;
    sendError(res, { ...error, headers }, head.requestId);
  }

  #fault(matched: Matched, error: unknown): void {
    this.deps.logger.error({ err: error, requestId: matched.head.requestId }, 'a request failed');
    this.#refuse(matched, { code: 'internal', detail: 'The gateway failed; see its log for this requestId.' });
  }
}

/** Watches the token of an open exchange. */
export function watchWith(verifier: Pick<Verifier, 'watch'>, secret: string, request: AuthorizationRequest) {
  const { scopes, project, ip } = request;
  const requirement = project === undefined ? { scopes, ip } : { scopes, project, ip };
  return (cut: (reason: DenialReason) => void) => verifier.watch(secret, requirement, { cut });
}
