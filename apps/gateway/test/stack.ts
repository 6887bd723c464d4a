import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createLogger } from '@latchkey/runtime';
import { type TestRedis, testCredentials, testRedis } from '@latchkey/testing';
import { Redis } from 'ioredis';
import { gatewayConfig } from '../src/config.js';
import { type Gateway, startGateway } from '../src/start.js';
import { Authority } from './authority.js';

export const CREDENTIALS = testCredentials().gateway;

export type Handler = (req: IncomingMessage, res: ServerResponse) => void;

/** An upstream with a handler set by the test; it records its requests. */
export class TestUpstream {
  readonly server: Server;
  readonly seen: { method: string; url: string; headers: string[] }[] = [];
  readonly sockets = new Set<Socket>();
  handler: Handler = (_req, res) => res.end('ok');
  port = 0;

  constructor() {
    this.server = createServer((req, res) => {
      this.seen.push({ method: req.method ?? '', url: req.url ?? '', headers: req.rawHeaders });
      this.handler(req, res);
    });
    this.server.on('connection', (socket) => {
      this.sockets.add(socket);
      socket.on('close', () => this.sockets.delete(socket));
    });
  }

  async listen(port = 0): Promise<void> {
    await new Promise<void>((resolve) => this.server.listen(port, '127.0.0.1', resolve));
    this.port = (this.server.address() as AddressInfo).port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Value of a header of the last request; undefined without one. */
  lastHeader(name: string): string | undefined {
    const { headers } = this.seen.at(-1)!;
    const i = headers.findIndex((part, at) => at % 2 === 0 && part.toLowerCase() === name);
    return i < 0 ? undefined : headers[i + 1];
  }

  async close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await new Promise<void>((resolve) => this.server.close(() => resolve()));
  }
}

export interface Stack extends AsyncDisposable {
  readonly authority: Authority;
  readonly upstream: TestUpstream;
  /** Replaces the token-service's HTTP API. */
  readonly api: TestUpstream;
  readonly redis: TestRedis;
  readonly client: Redis;
  readonly gateway: Gateway;
  /** Writes another routes file, for `gateway.reload()`. */
  writeRoutes(text: string): void;
}

/** A gateway in this process on free ports, with a real Redis, an authority over real gRPC and upstreams of HTTP. */
export async function stack(
  routes: (upstream: string) => string,
  env: Record<string, string> = {},
  prepare: (authority: Authority) => void = () => undefined,
): Promise<Stack> {
  const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-gateway-'));
  const file = path.join(dir, 'gateway.yaml');
  const [redis, authority, upstream, api] = [
    await testRedis(),
    await Authority.start(),
    new TestUpstream(),
    new TestUpstream(),
  ];
  prepare(authority);
  await Promise.all([upstream.listen(), api.listen()]);
  writeFileSync(file, routes(upstream.url));
  const config = gatewayConfig({
    PORT: '0',
    OPS_PORT: '0',
    AUTHZ_PORT: '0',
    RPC_ADDRESS: authority.address,
    ...CREDENTIALS,
    REDIS_URL: redis.url,
    API_URL: api.url,
    GATEWAY_CONFIG: file,
    CONSOLE_DIR: path.join(dir, 'console'),
    SHUTDOWN_DELAY_MS: '0',
    ...env,
  });
  const gateway = await startGateway(config, createLogger('gateway', process.env['TEST_LOG_LEVEL'] ?? 'fatal'));
  const client = new Redis(redis.url);
  return {
    authority,
    upstream,
    api,
    redis,
    client,
    gateway,
    writeRoutes: (text) => writeFileSync(file, text),
    async [Symbol.asyncDispose]() {
      await gateway.stop();
      client.disconnect();
      authority.close();
      await Promise.all([upstream.close(), api.close(), redis.close()]);
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** A response over a bare socket. */
export interface RawResponse {
  readonly text: string;
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly body: string;
}

/**
 * Sends bytes as they are and reads until the server closes, or until the text contains `until`.
 * Rejects after five seconds.
 */
export function raw(port: number, bytes: string | Buffer, until?: string): Promise<RawResponse> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1');
    const chunks: Buffer[] = [];
    const timer = setTimeout(
      () => socket.destroy(new Error(`timeout; received so far: ${Buffer.concat(chunks)}`)),
      5_000,
    );
    const end = () => {
      clearTimeout(timer);
      socket.destroy();
      resolve(parseResponse(Buffer.concat(chunks).toString('latin1')));
    };
    socket.on('connect', () => socket.write(bytes));
    socket.on('data', (chunk) => {
      chunks.push(chunk);
      if (until !== undefined && Buffer.concat(chunks).includes(until)) end();
    });
    socket.on('close', end);
    socket.on('error', reject);
  });
}

function parseResponse(text: string): RawResponse {
  const split = text.indexOf('\r\n\r\n');
  const [first = '', ...lines] = text.slice(0, split < 0 ? undefined : split).split('\r\n');
  return {
    text,
    status: Number(first.split(' ')[1] ?? 0),
    headers: Object.fromEntries(
      lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]),
    ),
    body: split < 0 ? '' : text.slice(split + 4),
  };
}
