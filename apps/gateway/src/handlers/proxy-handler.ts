import type { DenialReason } from '@latchkey/contracts';
import type { Logger } from '@latchkey/runtime';
import { rateHeaders } from '@latchkey/runtime';
import type { Verifier } from '@latchkey/verifier';
import type { AuthorizationRequest, Checks, Decision } from '../check/index.js';
import { type CallerRequest, UpstreamGroup, type UpstreamPool, type UpstreamPools } from '../engine/index.js';
import {
  type Credentials,
  corsLines,
  type ErrorResponse,
  forwardedLines,
  identityLines,
  isPreflight,
  preflightLines,
  type ResponsePolicy,
  type Target,
} from '../http/index.js';
import type { Route, RouteTable } from '../routes/index.js';
import { Exchange, type ExchangeDeps } from './exchange.js';
import { authorizationRequestOf, requirementOf, whenDecided } from './gate.js';
import { inspectMcp, type McpBody, readMcpBody } from './mcp-body.js';

export interface ProxyHandlerDeps extends Omit<ExchangeDeps, 'upstreamFailed'> {
  readonly checks: Checks;
  readonly verifier: Pick<Verifier, 'watch'>;
  readonly upstreams: UpstreamPools;
  readonly logger: Logger;
}

/** Shared by all requests to a route. */
interface Prepared {
  readonly upstream: UpstreamPool;
  /** Of a route with several upstreams. */
  readonly group: UpstreamGroup | undefined;
  readonly policy: ResponsePolicy;
  readonly credentials: Credentials;
}

/** A request that was matched to a route. */
export interface Matched {
  readonly request: CallerRequest;
  readonly target: Target;
  readonly route: Route;
  /** A WebSocket handshake (RFC 6455 section 4): checked as a GET, then tunnelled. */
  readonly isUpgrade: boolean;
}

type Allowed = Extract<Decision, { allowed: true }>;

/** The data path: a request to a route of the routes file is checked and forwarded, or refused. */
export class ProxyHandler {
  readonly #prepared = new WeakMap<Route, Prepared>();
  readonly #exchanges: ExchangeDeps;

  constructor(private readonly deps: ProxyHandlerDeps) {
    this.#exchanges = {
      ...deps,
      upstreamFailed: (requestId, { kind, reason }) => deps.logger.warn({ requestId, kind, reason }, 'upstream failed'),
    };
  }

  /** Prepares for the routes of a table, before requests are matched to them. */
  use({ routes }: RouteTable): void {
    const { upstreams } = this.deps;
    upstreams.use(routes.flatMap((route) => route.upstreams));
    for (const route of routes) {
      const pools = route.upstreams.map((upstream) => upstreams.get(upstream));
      this.#prepared.set(route, {
        upstream: pools[0]!,
        group: pools.length > 1 ? new UpstreamGroup(pools) : undefined,
        policy: { trustedOrigin: route.trustedOrigin, maySetSession: false, ownCors: route.cors !== undefined },
        credentials: { authorization: route.forwardAuthorization, session: false },
      });
    }
  }

  handle(matched: Matched): void {
    const { request, route, target, isUpgrade } = matched;
    const { head } = request;
    const { method } = head;
    if (route.cors && isPreflight(head))
      return void request.respond(204, 'No Content', preflightLines(route.cors, head.origin));
    if (isUpgrade && head.hasBody) {
      const detail = 'A WebSocket handshake must not have a body.';
      return void this.#refuse(matched, { code: 'invalid_request', detail });
    }
    if (route.public) return void this.#forward(matched, undefined, undefined);
    const required = requirementOf(route, method, target.path);
    if ('error' in required) return void this.#refuse(matched, required.error);
    if (route.mcp && isUpgrade)
      return void this.#refuse(matched, { code: 'invalid_request', detail: 'MCP over WebSocket is not supported.' });
    const authorization = authorizationRequestOf(route, method, head, required.requirement);
    if (route.mcp && method === 'POST') return void this.#handleMcp(matched, authorization);
    this.#decide(matched, authorization, (allowed) => this.#forward(matched, allowed, authorization));
  }

  /** Checks the token before it reads the body, then the scopes that the body requires. */
  #handleMcp(matched: Matched, authorization: AuthorizationRequest): void {
    const { route, request } = matched;
    this.#decide(
      matched,
      authorization,
      ({ principal }) => {
        readMcpBody(request, this.deps.bodyIdleMs)
          .then((read: McpBody) => {
            if ('error' in read) return this.#refuse(matched, read.error);
            const inspected = inspectMcp(read.text, route.tools, request.head);
            if ('error' in inspected) return this.#refuse(matched, inspected.error);
            if ('notOffered' in inspected) {
              const detail = `The route ${route.name} offers no ${inspected.notOffered}.`;
              const denied = this.deps.checks.deny(authorization, 'insufficient_scope', principal.tokenId, { detail });
              return this.#refuse(matched, denied.error);
            }
            const scopes = [...new Set([...authorization.scopes, ...inspected.scopes])];
            const full = { ...authorization, scopes, uses: inspected.messages };
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
    authorization: AuthorizationRequest | undefined,
    body?: Buffer,
  ): void {
    const { route, request, target } = matched;
    const { head } = request;
    const path = route.upstreamPath(target.path);
    if (path === undefined) {
      const detail = "Path parameters (;…) are not allowed inside the route's stripped prefix.";
      return void this.#refuse(matched, { code: 'invalid_request', detail });
    }
    const { upstream, group, policy, credentials } = this.#prepared.get(route)!;
    let lines = forwardedLines(head, credentials, route.stripPrefix);
    let extra = '';
    if (allowed) {
      lines += identityLines(allowed.principal);
      if (allowed.rate) extra = linesOf(rateHeaders(allowed.rate));
    }
    if (route.cors) extra += corsLines(route.cors, head.origin);
    const plan = {
      upstream: group ? group.pick(0)! : upstream,
      group,
      // HTTP/1.0 has requests without Host.
      host: route.preserveHost && head.host !== '' ? head.host : undefined,
      path: target.query === '' ? path : path + target.query,
      lines,
      body,
      timeoutMs: route.timeoutMs,
      policy,
      extra,
      watch: allowed && authorization ? watchWith(this.deps.verifier, allowed.secret, authorization) : undefined,
      isUpgrade: matched.isUpgrade,
      unavailableDetail: undefined,
    };
    new Exchange(request, plan, this.#exchanges).start();
  }

  #refuse({ route, request }: Matched, error: ErrorResponse): void {
    request.refuse(error, route.cors ? corsLines(route.cors, request.head.origin) : '');
  }

  #fault(matched: Matched, error: unknown): void {
    this.deps.logger.error({ err: error, requestId: matched.request.head.requestId }, 'a request failed');
    this.#refuse(matched, { code: 'internal', detail: 'The gateway failed; see its log for this requestId.' });
  }
}

const linesOf = (headers: Readonly<Record<string, string>>): string =>
  Object.entries(headers)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('');

/** Watches the token of an open exchange. */
export function watchWith(verifier: Pick<Verifier, 'watch'>, secret: string, request: AuthorizationRequest) {
  const { scopes, project, ip } = request;
  const requirement = project === undefined ? { scopes, ip } : { scopes, project, ip };
  return (cut: (reason: DenialReason) => void) => verifier.watch(secret, requirement, { cut });
}
