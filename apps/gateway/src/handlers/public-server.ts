import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { LIMITS } from '@latchkey/contracts';
import { type Logger, newId, type ReadinessCheck, readiness } from '@latchkey/runtime';
import {
  type ErrorResponse,
  type RequestHead,
  readHead,
  readTarget,
  sendError,
  sendErrorAndClose,
  sendJson,
  type Target,
} from '../http/index.js';
import type { RouteTable } from '../routes/index.js';
import type { Console } from './console.js';
import type { Management } from './management.js';
import type { ProxyHandler } from './proxy-handler.js';
import type { WebSocketHandler } from './websocket-handler.js';

export interface PublicServerDeps {
  readonly routes: () => RouteTable;
  readonly proxyHandler: ProxyHandler;
  readonly webSockets: WebSocketHandler;
  readonly management: Management;
  readonly console: Console;
  /** The gateway's own endpoints, by path. */
  readonly own: ReadonlyMap<string, (req: IncomingMessage, res: ServerResponse) => void>;
  readonly isTrustedProxy: (ip: string) => boolean;
  readonly checks: Readonly<Record<string, ReadinessCheck>>;
  readonly logger: Logger;
  readonly connectionsMax: number;
  /** Called when a response was sent or aborted. */
  readonly observe: (route: string, status: number, startedAtMs: number) => void;
}

/** Longest time until the headers are complete. */
const HEADERS_TIMEOUT_MS = 10_000;
/** Longest time until the whole request, body included, has arrived. */
const REQUEST_TIMEOUT_MS = 3_600_000;
/** Longer than the idle timeout of most load balancers. */
const KEEP_ALIVE_MS = 65_000;

/** How long a body is read and discarded after the response. */
const UNWANTED_BODY_MS = 2_000;

const ANONYMOUS_ROUTE = '-';

/** The public listener on node:http: parses each request once and passes it to the handler of its path. */
export class PublicServer {
  readonly server: Server;

  constructor(private readonly deps: PublicServerDeps) {
    this.server = createServer({
      maxHeaderSize: LIMITS.headerBytesMax,
      headersTimeout: HEADERS_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      keepAliveTimeout: KEEP_ALIVE_MS,
      connectionsCheckingInterval: 1_000,
      insecureHTTPParser: false,
      requireHostHeader: false,
      noDelay: true,
      shouldUpgradeCallback: (req) => isWebSocket(req),
    });
    // Past this count node drops headers silently; their total size and our own count are the limits.
    this.server.maxHeadersCount = 0;
    this.server.maxConnections = deps.connectionsMax;
    this.server.on('request', (req, res) => this.#onRequest(req, res, false));
    this.server.on('checkContinue', (req, res) => this.#onRequest(req, res, true));
    this.server.on('checkExpectation', (req, res) => this.#onRequest(req, res, false));
    this.server.on('upgrade', (req, socket, early) => this.#onUpgrade(req, socket as Socket, early));
    this.server.on('connect', (_req, socket) =>
      sendErrorAndClose(
        socket,
        { code: 'method_not_allowed', detail: 'CONNECT is not supported: this is not a forward proxy.' },
        newId(),
      ),
    );
    this.server.on('clientError', onClientError);
  }

  #onRequest(req: IncomingMessage, res: ServerResponse, expectsContinue: boolean): void {
    const startedAtMs = performance.now();
    let route = ANONYMOUS_ROUTE;
    res.on('close', () => {
      this.deps.observe(route, res.headersSent ? res.statusCode : 0, startedAtMs);
      if (!req.complete) discardBody(req);
    });
    (req.socket as ServerSocket)[lastResponse] = res;
    const read = readHead(req, this.deps.isTrustedProxy);
    if ('error' in read) {
      // Where such a request ends is ambiguous, so nothing after it is read.
      res.shouldKeepAlive = false;
      return void sendError(res, read.error, read.requestId);
    }
    const { head } = read;
    try {
      route = this.#serve(req, res, head, expectsContinue);
    } catch (error) {
      this.deps.logger.error({ err: error, requestId: head.requestId }, 'a request failed');
      const response: ErrorResponse = {
        code: 'internal',
        detail: 'The gateway failed; see its log for this requestId.',
      };
      sendError(res, response, head.requestId);
    }
  }

  /** @returns the route's name, for the metrics */
  #serve(req: IncomingMessage, res: ServerResponse, head: RequestHead, expectsContinue: boolean): string {
    const target = readTarget(req.url ?? '');
    if ('detail' in target) {
      sendError(res, { code: 'invalid_request', detail: target.detail }, head.requestId);
      return ANONYMOUS_ROUTE;
    }
    const method = req.method ?? '';
    if (method === 'TRACE') {
      const error: ErrorResponse = {
        code: 'method_not_allowed',
        detail: 'TRACE is not supported: it would return the headers added by proxies.',
      };
      sendError(res, error, head.requestId);
      return ANONYMOUS_ROUTE;
    }
    const { deps } = this;
    const owner = ownerOf(target.match);
    if (owner === 'management') {
      deps.management.handle(req, res, head, target, expectsContinue);
      return 'management';
    }
    if (owner === 'gateway') return this.#serveOwn(req, res, head, target);
    if (deps.console.has(target.path)) {
      deps.console.handle(res, method, target.path, head, req.headers);
      return 'console';
    }
    const route = deps.routes().match(target.match);
    if (!route) {
      sendError(res, { code: 'not_found', detail: 'No route of this gateway matches the path.' }, head.requestId);
      return ANONYMOUS_ROUTE;
    }
    deps.proxyHandler.handle({ req, res, method, target, head, route, expectsContinue });
    return route.name;
  }

  #serveOwn(req: IncomingMessage, res: ServerResponse, head: RequestHead, { path }: Target): string {
    const own = this.deps.own.get(path);
    if (own) {
      own(req, res);
      return path.slice(1).replaceAll('/', '-');
    }
    if (path === '/healthz') sendJson(res, 200, { status: 'ok' });
    else if (path === '/readyz') {
      void readiness(this.deps.checks).then(({ ready, checks }) =>
        sendJson(
          res,
          ready ? 200 : 503,
          { status: ready ? 'ready' : 'not ready', checks },
          ready ? {} : { 'retry-after': '1' },
        ),
      );
    } else sendError(res, { code: 'not_found', detail: 'There is no endpoint at this path.' }, head.requestId);
    return 'health';
  }

  #onUpgrade(req: IncomingMessage, socket: Socket, early: Buffer): void {
    // node removes its own listener: a reset by the caller must not end the process.
    socket.on('error', () => socket.destroy());
    const read = readHead(req, this.deps.isTrustedProxy);
    if ('error' in read) return void sendErrorAndClose(socket, read.error, read.requestId);
    const { head } = read;
    const refuse = (error: ErrorResponse) => sendErrorAndClose(socket, error, head.requestId);
    try {
      const target = readTarget(req.url ?? '');
      if ('detail' in target) return void refuse({ code: 'invalid_request', detail: target.detail });
      const route = ownerOf(target.match) === undefined ? this.deps.routes().match(target.match) : undefined;
      if (!route) return void refuse({ code: 'not_found', detail: 'No route of this gateway matches the path.' });
      this.deps.webSockets.handle({ req, socket, early, target, head, route });
    } catch (error) {
      this.deps.logger.error({ err: error, requestId: head.requestId }, 'an upgrade failed');
      refuse({ code: 'internal', detail: 'The gateway failed; see its log for this requestId.' });
    }
  }
}

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

/** Closes the connection of a caller that keeps sending a body after the response. */
function discardBody(req: IncomingMessage): void {
  setTimeout(() => {
    if (!req.complete) req.socket.destroy();
  }, UNWANTED_BODY_MS).unref();
}

/** Only WebSocket is switched to; other protocols are ignored and the response is HTTP/1.1 (RFC 9110 section 7.8). */
function isWebSocket(req: IncomingMessage): boolean {
  return req.method === 'GET' && req.headers.upgrade?.toLowerCase() === 'websocket';
}

/** The last response begun on a connection. */
const lastResponse = Symbol('lastResponse');
type ServerSocket = Duplex & { [lastResponse]?: ServerResponse };

/** A request that cannot be parsed has no response object: the error is written to the socket, which is closed. */
function onClientError(error: NodeJS.ErrnoException, socket: Duplex): void {
  const last = (socket as ServerSocket)[lastResponse];
  // A response in progress must neither be cut short nor be followed by one without a request.
  if (last && !last.shouldKeepAlive && last.writableEnded && !last.closed) return;
  const ambiguous = last !== undefined && !last.closed && (last.headersSent || last.req.complete);
  if (error.code === 'ECONNRESET' || !socket.writable || ambiguous) return void socket.destroy();
  const response: ErrorResponse =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? {
          code: 'header_too_large',
          detail: `Request line and headers can have at most ${LIMITS.headerBytesMax} bytes together.`,
        }
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? { code: 'request_timeout', detail: 'The request did not arrive in time.' }
        : { code: 'invalid_request', detail: `The request is not well-formed HTTP/1.1 (${error.code ?? 'unknown'}).` };
  sendErrorAndClose(socket, response, newId());
}
