import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { callerOf } from './caller.js';
import { events } from './events.js';
import { graphql } from './graph.js';
import { byMethod, type Exchange, notFound, Problem, sendJson, sendProblem } from './http.js';
import type { Log } from './log.js';
import { mcp } from './mcp.js';
import { docs, document, documents, file, projectInPath, projects, whoami } from './rest.js';
import { Sockets } from './sockets.js';
import { Store } from './store.js';

export interface DemoOptions {
  /** 0 takes a free one. */
  port: number;
  host: string;
  log: Log;
  /** Origins, besides those of this machine's own address, whose pages may call `/mcp`. None by default. */
  allowedOrigins?: string[];
  /** How long requests under way can go on after {@link DemoUpstream.close}. 5 000 by default. */
  graceMs?: number;
}

export interface DemoUpstream {
  port: number;
  url: string;
  /** Takes no new requests, ends streams at once, waits for the rest up to `graceMs`. */
  close(): Promise<void>;
}

type Handler = (exchange: Exchange) => void | Promise<void>;

const LOOPBACK = /^https?:\/\/(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/;

/** Starts the demo upstream; resolves once it listens. */
export async function startDemoUpstream(options: DemoOptions): Promise<DemoUpstream> {
  const { log, graceMs = 5_000 } = options;
  const store = new Store();
  const sockets = new Sockets(store);
  const stopping = new AbortController();
  const originAllowed = (origin: string) => LOOPBACK.test(origin) || (options.allowedOrigins ?? []).includes(origin);

  const health: Handler = (exchange) => {
    byMethod(exchange.request, { GET: true });
    sendJson(exchange, 200, { status: 'ok' });
  };
  const ready: Handler = (exchange) => {
    byMethod(exchange.request, { GET: true });
    if (stopping.signal.aborted)
      throw new Problem(503, 'stopping', 'The demo upstream stops.', { headers: { 'retry-after': '5' } });
    sendJson(exchange, 200, { status: 'ready' });
  };
  const upgradeNeeded: Handler = (exchange) => {
    byMethod(exchange.request, { GET: true });
    throw new Problem(426, 'upgrade_required', 'This is a WebSocket address.', {
      headers: { upgrade: 'websocket', connection: 'upgrade' },
    });
  };

  const handlerFor = ([first, , third, fourth, ...rest]: string[]): Handler => {
    if (first === 'docs') return docs;
    if (rest.length === 0 && first === 'projects') {
      if (third === undefined) return projects;
      if (third === 'documents') return fourth === undefined ? documents : document;
      if (third === 'files' && fourth !== undefined) return file;
      if (third === 'events' && fourth === undefined) return events;
      if (third === 'ws' && fourth === undefined) return upgradeNeeded;
    }
    throw notFound('such path; GET /docs/ lists what there is');
  };
  const plain: Record<string, Handler> = {
    healthz: health,
    readyz: ready,
    whoami,
    events,
    graphql,
    ws: upgradeNeeded,
    mcp: (exchange) => mcp(exchange, originAllowed),
  };

  const server = createServer({ keepAliveTimeout: 65_000, requestTimeout: 60_000, headersTimeout: 10_000 });
  server.on('request', (request, response) => void serve(request, response));
  server.on('upgrade', upgrade);

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const startedAt = performance.now();
    const caller = callerOf(request);
    const gone = new AbortController();
    response.on('close', () => {
      gone.abort();
      log.debug('request', {
        requestId: caller.requestId,
        method: request.method,
        path: request.url?.split('?', 1)[0],
        status: response.statusCode,
        finished: response.writableFinished,
        ms: Math.round(performance.now() - startedAt),
      });
    });
    // A caller that disconnects while we write; the close handler ends the work.
    response.on('error', (error) => log.debug('caller gone', { requestId: caller.requestId, reason: error.message }));
    response.setHeader('x-request-id', caller.requestId);
    try {
      const { url, path } = target(request);
      const handler = path.length === 1 && Object.hasOwn(plain, path[0]!) ? plain[path[0]!]! : handlerFor(path);
      const signal = AbortSignal.any([gone.signal, stopping.signal]);
      await handler({ request, response, url, path, caller, store, log, signal });
    } catch (error) {
      if (gone.signal.aborted) return;
      if (response.headersSent) return void response.destroy();
      if (error instanceof Problem) return sendProblem({ response, caller }, error);
      log.error('request failed', {
        requestId: caller.requestId,
        reason: error instanceof Error ? error.stack : String(error),
      });
      sendProblem(
        { response, caller },
        new Problem(500, 'internal', 'The demo upstream failed; its log names this request.'),
      );
    }
  }

  function upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on('error', () => socket.destroy());
    const caller = callerOf(request);
    try {
      const { path } = target(request);
      const isSocket = path.at(-1) === 'ws' && (path.length === 1 || (path.length === 3 && path[0] === 'projects'));
      if (!isSocket) throw notFound('WebSocket at this path');
      const project = path.length === 3 ? projectInPath({ path, caller, store }).id : null;
      if (!sockets.hasCapacity || stopping.signal.aborted)
        throw new Problem(503, 'full', 'Too many open sockets; try again later.');
      sockets.accept(request, socket, head, caller, project);
    } catch (error) {
      const status = error instanceof Problem ? error.status : 500;
      if (status === 500) log.error('upgrade failed', { requestId: caller.requestId, reason: String(error) });
      socket.end(
        `HTTP/1.1 ${status} Refused\r\nconnection: close\r\ncontent-length: 0\r\nx-request-id: ${caller.requestId}\r\n\r\n`,
      );
    }
  }

  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port, options.host, () => {
      server.off('error', reject);
      resolve();
    });
  });
  const { port } = server.address() as AddressInfo;
  const host = options.host.includes(':') ? `[${options.host}]` : options.host;
  const url = `http://${host}:${port}`;
  log.info('listening', { url });

  return {
    port,
    url,
    async close() {
      stopping.abort();
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeIdleConnections();
      const cut = setTimeout(() => server.closeAllConnections(), graceMs);
      await Promise.all([closed, sockets.close(Math.min(graceMs, 1_000))]);
      clearTimeout(cut);
      log.info('stopped');
    },
  };
}

/** The request's URL and path segments; 400 for one that cannot be read. */
function target(request: IncomingMessage): { url: URL; path: string[] } {
  const unreadable = new Problem(400, 'invalid_request', 'The path cannot be read; check its percent-encoding.');
  const base = 'http://upstream';
  const raw = request.url ?? '/';
  if (!raw.startsWith('/') || !URL.canParse(base + raw)) throw unreadable;
  const url = new URL(base + raw);
  try {
    const segments = url.pathname.split('/').slice(1).map(decodeURIComponent);
    if (segments.at(-1) === '') segments.pop();
    return { url, path: segments };
  } catch {
    throw unreadable;
  }
}
