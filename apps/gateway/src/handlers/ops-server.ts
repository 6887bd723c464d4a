import { failed, type Logger, type ReadinessCheck, readiness } from '@latchkey/runtime';
import { type CallerRequest, HttpServer } from '../engine/index.js';
import { type ErrorResponse, RETRY_AFTER_S, readTarget } from '../http/index.js';
import type { Reloaded } from '../routes/index.js';
import type { ForwardAuth } from './forward-auth.js';

export interface OpsServerDeps {
  readonly forwardAuth: ForwardAuth;
  readonly metrics: { readonly contentType: string; readonly text: () => Promise<string> };
  /** Shown at `/readyz`. */
  readonly version: string;
  /** Keys are shown at `/readyz`. */
  readonly checks: Readonly<Record<string, ReadinessCheck>>;
  /** Shown there when they fail, without making the gateway unready. */
  readonly warnings: Readonly<Record<string, ReadinessCheck>>;
  /** Reads the routes again, for all processes. */
  readonly reload: () => Promise<Reloaded>;
  readonly isTrustedProxy: (ip: string) => boolean;
  readonly logger: Logger;
  readonly connectionsMax: number;
}

/** The ops port: `/forward-auth`, `/metrics`, `/healthz`, `/readyz` and `/reload`. Never published by default. */
export class OpsServer {
  readonly http: HttpServer;

  constructor(private readonly deps: OpsServerDeps) {
    this.http = new HttpServer({
      onRequest: (request) => this.#onRequest(request),
      onResponse: () => undefined,
      logger: deps.logger,
      isTrustedProxy: deps.isTrustedProxy,
      connectionsMax: deps.connectionsMax,
    });
  }

  #onRequest(request: CallerRequest): void {
    const { method } = request.head;
    // After CONNECT a caller does not speak HTTP.
    if (method === 'CONNECT') request.closeAfter();
    const target = readTarget(request.head.target);
    if ('detail' in target) return void request.refuse(target);
    if (target.path === '/reload') return void this.#reload(request);
    if (method !== 'GET' && method !== 'HEAD' && target.path !== '/forward-auth') return void request.refuse(ONLY_GET);
    switch (target.path) {
      case '/forward-auth':
        return void this.deps.forwardAuth.handle(request, target.query);
      case '/healthz':
        return void respondJson(request, 200, { status: 'ok' });
      case '/readyz':
        return void respondReadiness(request, this.deps.checks, this.deps.warnings, this.deps.version);
      case '/metrics':
        return void this.#respondMetrics(request);
      default:
        return void request.refuse({
          code: 'not_found',
          detail: 'This port serves /forward-auth, /healthz, /readyz, /metrics and /reload.',
        });
    }
  }

  #reload(request: CallerRequest): void {
    if (request.head.method !== 'POST') return void request.refuse(ONLY_POST);
    if (request.head.origin !== undefined) return void request.refuse(FROM_BROWSER);
    this.deps.reload().then(
      (reloaded) => {
        if ('hash' in reloaded) respondJson(request, 200, { reloaded: true, ...reloaded });
        else request.refuse({ code: reloaded.isInvalid ? 'reload_failed' : 'unavailable', detail: reloaded.reason });
      },
      ({ message }: Error) =>
        request.refuse({ code: 'unavailable', detail: `The primary did not respond: ${message}` }),
    );
  }

  #respondMetrics(request: CallerRequest): void {
    const { contentType, text } = this.deps.metrics;
    text().then(
      (body) => request.respond(200, 'OK', `content-type: ${contentType}\r\n`, body),
      (error: Error) => request.refuse({ code: 'internal', detail: `The metrics failed: ${error.message}` }),
    );
  }
}

const ONLY_POST: ErrorResponse = {
  code: 'method_not_allowed',
  detail: 'Reload with POST.',
  headers: { allow: 'POST' },
};
const FROM_BROWSER: ErrorResponse = {
  code: 'cross_site',
  detail: 'Browsers send Origin with a POST, and no page has a reason to reload; ask without one.',
};

const ONLY_GET: ErrorResponse = {
  code: 'method_not_allowed',
  detail: 'This port supports GET and HEAD only.',
  headers: { allow: 'GET, HEAD' },
};

type Checks = Readonly<Record<string, ReadinessCheck>>;

/** @param version shown; of the public port, which strangers can ask, none is */
export function respondReadiness(request: CallerRequest, of: Checks, warnings: Checks, version?: string): void {
  void Promise.all([readiness(of), readiness(warnings)]).then(([{ ready, checks }, warned]) => {
    const named = warned.ready ? {} : { warnings: failed(warned.checks) };
    const status = ready ? 'ready' : 'not ready';
    respondJson(request, ready ? 200 : 503, { status, version, checks, ...named });
  });
}

export function respondJson(request: CallerRequest, status: 200 | 503, body: unknown): void {
  const retry = status === 503 ? `retry-after: ${RETRY_AFTER_S}\r\n` : '';
  const lines = `content-type: application/json\r\ncache-control: no-store\r\n${retry}`;
  request.respond(status, status === 200 ? 'OK' : 'Service Unavailable', lines, `${JSON.stringify(body)}\n`);
}
