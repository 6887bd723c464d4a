import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, createServer as createNetServer, type Server as NetServer } from 'node:net';
import { problem } from '@latchkey/contracts';
import { collectDefaultMetrics, Registry } from 'prom-client';
import { newId } from './ids.js';
import { registerBuildInfo } from './version.js';

/** A dependency that must work for the service to be ready: resolves, or rejects with the reason. */
export type ReadinessCheck = () => Promise<void>;

export interface OpsOptions {
  host: string;
  port: number;
  /** Shown at `/readyz`. */
  version: string;
  registry: Registry;
  /** Keys are shown at `/readyz`. */
  checks: Record<string, ReadinessCheck>;
  /** Shown at `/readyz` when they fail, without making the service unready. */
  warnings?: Record<string, ReadinessCheck>;
  /** Further paths on the ops port, exact or (ending in `/`) by prefix. */
  routes?: Record<string, (req: IncomingMessage, res: ServerResponse) => void>;
  /** Reads changed files at once, for `POST /reload`: what to say of it. @throws Error that says what cannot be used */
  reload?: () => Promise<object>;
  /** Timeout of one readiness check. Default 2 000. */
  checkTimeoutMs?: number;
}

/** Readiness: each check with `ok` or its reason. */
export async function readiness(
  checks: Record<string, ReadinessCheck>,
  timeoutMs = 2_000,
): Promise<{ ready: boolean; checks: Record<string, string> }> {
  const entries = await Promise.all(
    Object.entries(checks).map(async ([name, check]) => {
      let timer: NodeJS.Timeout | undefined;
      try {
        await Promise.race([
          check(),
          new Promise((_, reject) => {
            timer = setTimeout(() => reject(new Error(`no response within ${timeoutMs} ms`)), timeoutMs);
          }),
        ]);
        return [name, 'ok'] as const;
      } catch (error) {
        return [name, (error as Error).message || 'failed'] as const;
      } finally {
        clearTimeout(timer);
      }
    }),
  );
  return { ready: entries.every(([, state]) => state === 'ok'), checks: Object.fromEntries(entries) };
}

/** Those of `readiness` that are not ok, with their reasons. */
export const failed = (checks: Record<string, string>): Record<string, string> =>
  Object.fromEntries(Object.entries(checks).filter(([, state]) => state !== 'ok'));

/** A registry with the process's own metrics, `latchkey_build_info`, and a `service` label on every one. */
export function createRegistry(service: string, version: string): Registry {
  const registry = new Registry();
  registry.setDefaultLabels({ service });
  collectDefaultMetrics({ register: registry });
  registerBuildInfo(registry, version);
  return registry;
}

/** The ops port: `/healthz`, `/readyz`, `/metrics` and what a service adds. Never published by default. */
export async function startOps(options: OpsOptions): Promise<Server> {
  const routes = options.routes ?? {};
  const server = createServer((req, res) => {
    const path = (req.url ?? '/').split('?', 1)[0]!;
    const route = routes[path] ?? Object.entries(routes).find(([p]) => p.endsWith('/') && path.startsWith(p))?.[1];
    if (route) return route(req, res);
    if (path === '/healthz') return sendJson(res, 200, { status: 'ok' });
    if (path === '/readyz') {
      const of = (some: Record<string, ReadinessCheck>) => readiness(some, options.checkTimeoutMs);
      void Promise.all([of(options.checks), of(options.warnings ?? {})]).then(([{ ready, checks }, warned]) =>
        sendJson(
          res,
          ready ? 200 : 503,
          {
            status: ready ? 'ready' : 'not ready',
            version: options.version,
            checks,
            ...(!warned.ready && { warnings: failed(warned.checks) }),
          },
          ready ? {} : { 'retry-after': '1' },
        ),
      );
      return;
    }
    if (path === '/metrics') {
      options.registry.metrics().then(
        (text) => res.writeHead(200, { 'content-type': options.registry.contentType }).end(text),
        (error: Error) => sendJson(res, 500, { status: 'failed', detail: error.message }),
      );
      return;
    }
    if (path === '/reload' && options.reload) return void respondReload(req, res, options.reload);
    sendJson(res, 404, {
      status: 'not found',
      detail: `this port serves /healthz, /readyz, /metrics${options.reload ? ' and, for POST, /reload' : ''}`,
    });
  });
  server.requestTimeout = 10_000;
  await listen(server, options.port, options.host);
  return server;
}

/** No credential: it only has files read that are read anyway. Browsers send `Origin` with every POST. */
async function respondReload(req: IncomingMessage, res: ServerResponse, reload: () => Promise<object>): Promise<void> {
  const refuse = (code: 'method_not_allowed' | 'cross_site' | 'reload_failed', detail: string) => {
    const body = problem(code, detail, newId());
    res.writeHead(body.status, { 'content-type': 'application/problem+json', 'cache-control': 'no-store' });
    res.end(`${JSON.stringify(body)}\n`);
  };
  if (req.method !== 'POST') {
    res.setHeader('allow', 'POST');
    return refuse('method_not_allowed', 'Reload with POST.');
  }
  if (req.headers.origin !== undefined)
    return refuse('cross_site', 'No page has a reason to reload: ask without Origin.');
  try {
    sendJson(res, 200, { reloaded: true, ...(await reload()) });
  } catch (error) {
    refuse('reload_failed', (error as Error).message);
  }
}

/** Listens. @throws Error naming the address when the port is in use */
export function listen(server: NetServer, port: number, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const inUse = `port ${port} on ${host} is in use by another program`;
      reject(error.code === 'EADDRINUSE' ? new Error(inUse, { cause: error }) : error);
    });
    server.listen(port, host, resolve);
  });
}

/** A port that is free now, for a server that does not report which one it has taken. */
export function freePort(host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createNetServer();
    probe.once('error', reject);
    probe.listen(0, host, () => {
      const { port } = probe.address() as AddressInfo;
      probe.close(() => resolve(port));
    });
  });
}

function sendJson(res: ServerResponse, status: number, body: unknown, headers: Record<string, string> = {}): void {
  res.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store', ...headers });
  res.end(`${JSON.stringify(body)}\n`);
}
