import type { IncomingMessage, ServerResponse } from 'node:http';
import type { DenialReason } from '@latchkey/contracts';
import type { Logger } from '@latchkey/runtime';
import { rateHeaders } from '@latchkey/runtime';
import type { Checks, Decision, Inquiry, Verifying } from '../check/index.js';
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
import { askedBy, inquiryOf, whenDecided } from './gate.js';
import { inspectMcp, type McpBody, readMcpBody } from './mcp-body.js';
import type { Upstream, Upstreams } from './upstreams.js';

export interface ProxyHandlerDeps extends Omit<ExchangeDeps, 'upstreamFailed'> {
  readonly checks: Checks;
  readonly verifier: Pick<Verifying, 'watch'>;
  readonly upstreams: Upstreams;
  readonly logger: Logger;
}

/** What is the same for every request to a route. */
interface Prepared {
  readonly upstream: Upstream;
  readonly policy: ResponsePolicy;
  readonly credentials: Credentials;
}

/** A request that has been read and matched. */
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
    const asked = askedBy(route, method, target.path);
    if ('refusal' in asked) return void this.#refuse(matched, asked.refusal);
    const inquiry = inquiryOf(route, method, head, asked.needs);
    if (route.mcp && method === 'POST') return void this.#handleMcp(matched, inquiry);
    this.#decide(matched, inquiry, (allowed) => this.#forward(matched, allowed, inquiry));
  }

  /** Checks the token first, so that only its holders have bodies read; then what the body asks for. */
  #handleMcp(matched: Matched, inquiry: Inquiry): void {
    const { route, head, req, res, expectsContinue } = matched;
    this.#decide(
      matched,
      inquiry,
      ({ principal }) => {
        if (expectsContinue) res.writeContinue();
        readMcpBody(req, head, this.deps.bodyIdleMs)
          .then((read: McpBody) => {
            if ('refusal' in read) return this.#refuse(matched, read.refusal);
            const asked = inspectMcp(read.text, route.tools, req.headers);
            if ('refusal' in asked) return this.#refuse(matched, asked.refusal);
            if ('notOffered' in asked) {
              const detail = `The route ${route.name} offers no ${asked.notOffered}.`;
              const denied = this.deps.checks.deny(inquiry, 'insufficient_scope', principal.tokenId, { detail });
              return this.#refuse(matched, denied.refusal);
            }
            const scopes = [...new Set([...inquiry.scopes, ...asked.scopes])];
            const full = { ...inquiry, scopes, uses: asked.messages };
            this.#decide(matched, full, (allowed) => this.#forward(matched, allowed, full, asked.body));
          })
          .catch((error: unknown) => this.#fault(matched, error));
      },
      { preliminary: true },
    );
  }

  #decide(
    matched: Matched,
    inquiry: Inquiry,
    onAllowed: (allowed: Allowed) => void,
    options: { preliminary?: boolean } = {},
  ): void {
    whenDecided(
      this.deps.checks,
      inquiry,
      options,
      (decision) => {
        if (decision.allowed) onAllowed(decision);
        else this.#refuse(matched, decision.refusal);
      },
      (error) => this.#fault(matched, error),
    );
  }

  #forward(matched: Matched, allowed: Allowed | undefined, inquiry: Inquiry | undefined, body?: Buffer): void {
    const { route, head, target } = matched;
    const path = route.upstreamPath(target.path);
    if (path === undefined) {
      const detail = 'The path holds ";" where its prefix ends.';
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
      watch: allowed && inquiry ? watchWith(this.deps.verifier, allowed.secret, inquiry) : undefined,
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

  #refuse({ route, res, head }: Matched, refusal: ErrorResponse): void {
    const shared = route.cors ? corsHeaders(route.cors, head.origin) : [];
    const headers: Record<string, string> = { ...refusal.headers };
    for (let i = 0; i < shared.length; i += 2) headers[shared[i]!] = shared[i + 1]!;
    sendError(res, { ...refusal, headers }, head.requestId);
  }

  #fault(matched: Matched, error: unknown): void {
    this.deps.logger.error({ err: error, requestId: matched.head.requestId }, 'a request failed');
    this.#refuse(matched, { code: 'internal', detail: 'The gateway failed; its log names this requestId.' });
  }
}

/** Registers what stays open under the token that opened it. */
export function watchWith(verifier: Pick<Verifying, 'watch'>, secret: string, inquiry: Inquiry) {
  const { scopes, project, ip } = inquiry;
  const requirement = project === undefined ? { scopes, ip } : { scopes, project, ip };
  return (cut: (reason: DenialReason) => void) => verifier.watch(secret, requirement, { cut });
}
