import type { Logger, ReadinessCheck } from '@latchkey/runtime';
import { type CallerRequest, HttpServer, type TlsCredentials } from '../engine/index.js';
import { ENCODED_SLASH_REFUSED, type ErrorResponse, readTarget, type Target } from '../http/index.js';
import type { RouteTable } from '../routes/index.js';
import type { Console } from './console.js';
import type { Management } from './management.js';
import { respondJson, respondReadiness } from './ops-server.js';
import type { ProxyHandler } from './proxy-handler.js';

export interface PublicServerDeps {
  readonly routes: () => RouteTable;
  readonly proxyHandler: ProxyHandler;
  readonly management: Management;
  readonly console: Console;
  /** The gateway's own endpoints, by path. */
  readonly own: ReadonlyMap<string, (request: CallerRequest, target: Target) => void>;
  readonly isTrustedProxy: (ip: string) => boolean;
  readonly checks: Readonly<Record<string, ReadinessCheck>>;
  readonly logger: Logger;
  /** Shown at `/readyz` when they fail, without making the gateway unready. */
  readonly warnings: Readonly<Record<string, ReadinessCheck>>;
  readonly connectionsMax: number;
  /** With it the port speaks TLS. */
  readonly tls: TlsCredentials | undefined;
  /** Called when a response was sent or aborted. */
  readonly observe: (route: string, status: number, startedAtMs: number) => void;
}

/** The public listener: passes each request to the handler of its path. */
export class PublicServer {
  readonly http: HttpServer;

  constructor(private readonly deps: PublicServerDeps) {
    this.http = new HttpServer({
      onRequest: (request) => this.#serve(request),
      logger: deps.logger,
      onResponse: ({ route, status, startedAtMs }) => deps.observe(route, status, startedAtMs),
      isTrustedProxy: deps.isTrustedProxy,
      connectionsMax: deps.connectionsMax,
      tls: deps.tls,
    });
  }

  #serve(request: CallerRequest): void {
    const { head } = request;
    if (head.method === 'TRACE' || head.method === 'CONNECT') {
      // After CONNECT a caller does not speak HTTP.
      if (head.method === 'CONNECT') request.closeAfter();
      return void request.refuse(UNSUPPORTED[head.method]);
    }
    if (head.isLoop) return void request.refuse(LOOP);
    if (head.maxForwards !== undefined && head.maxForwards < 0) return void request.refuse(BAD_MAX_FORWARDS);
    // RFC 9110 sections 9.3.7 and 7.6.2: about the server as a whole, or as the last one that may answer.
    if (head.method === 'OPTIONS' && (head.target === '*' || head.maxForwards === 0))
      return void request.respond(204, 'No Content', ALLOW);
    const { deps } = this;
    const routes = deps.routes();
    const target = readTarget(head.target, routes.allowEncodedSlashes);
    if ('detail' in target) return void request.refuse(target);
    if (target.readings && !routes.acceptsEncodedSlashes(target)) return void request.refuse(ENCODED_SLASH_REFUSED);
    const owner = ownerOf(target.match);
    if (owner === 'management') {
      request.route = 'management';
      return void deps.management.handle(request, target);
    }
    if (owner === 'gateway') return void this.#serveOwn(request, target);
    if (deps.console.has(target.path)) {
      request.route = 'console';
      return void deps.console.handle(request, target.path);
    }
    const route = routes.match(target.match);
    if (!route) return void request.refuse({ code: 'not_found', detail: 'No route of this gateway matches the path.' });
    request.route = route.name;
    const isUpgrade = head.upgrade === 'websocket' && head.method === 'GET';
    deps.proxyHandler.handle({ request, target, route, isUpgrade });
  }

  #serveOwn(request: CallerRequest, target: Target): void {
    const { path } = target;
    const own = this.deps.own.get(path);
    if (own) {
      request.route = path.slice(1).replaceAll('/', '-');
      return void own(request, target);
    }
    request.route = 'health';
    if (path === '/healthz') respondJson(request, 200, { status: 'ok' });
    else if (path === '/readyz') respondReadiness(request, this.deps.checks, this.deps.warnings);
    else request.refuse({ code: 'not_found', detail: 'There is no endpoint at this path.' });
  }
}

const LOOP: ErrorResponse = {
  code: 'bad_gateway',
  detail: 'The request came back to the gateway that forwarded it: an upstream of the routes file leads here.',
};
const BAD_MAX_FORWARDS: ErrorResponse = { code: 'invalid_request', detail: 'Max-Forwards is not a number.' };
const METHODS = 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS';
const ALLOW = `allow: ${METHODS}\r\n`;
const UNSUPPORTED: Readonly<Record<'TRACE' | 'CONNECT', ErrorResponse>> = {
  TRACE: {
    code: 'method_not_allowed',
    detail: 'TRACE is not supported: it would return the headers added by proxies.',
    headers: { allow: METHODS },
  },
  CONNECT: {
    code: 'method_not_allowed',
    detail: 'CONNECT is not supported: this is not a forward proxy.',
    headers: { allow: METHODS },
  },
};

/** What serves a path; undefined: the routes file. */
function ownerOf(path: string): 'management' | 'gateway' | undefined {
  const end = path.indexOf('/', 1);
  switch (end < 0 ? path : path.slice(0, end)) {
    case '/v1':
    case '/oauth2':
    case '/mcp':
      return 'management';
    case '/gateway':
    case '/healthz':
    case '/readyz':
      return 'gateway';
    default:
      return undefined;
  }
}
