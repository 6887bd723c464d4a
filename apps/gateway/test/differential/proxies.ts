import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { CallerConnection } from '../../src/engine/caller-connection.js';
import { UpstreamPool } from '../../src/engine/upstream-pool.js';
import { Exchange } from '../../src/handlers/exchange.js';
import type { Case } from './grammar.js';
import { Llhttp, llhttpResponse } from './llhttp.js';
import { admit, exchangeDeps, planFor } from './ours.js';
import type { Program } from './programs.js';
import type { Reading } from './reading.js';

/** A proxy on this machine in front of an origin that records what reaches it. */
export interface ProxyProgram extends AsyncDisposable {
  readonly name: string;
  readonly port: number;
}

/** The messages that reach an upstream, by the local port of the caller's connection. */
export class Origin {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #received = new Map<string, Reading>();
  readonly #responses = new Map<string, Buffer>();
  port = 0;

  constructor() {
    this.#server = createServer((socket) => this.#serve(socket));
  }

  async listen(): Promise<void> {
    this.port = await listen(this.#server);
  }

  /** What a proxy forwards for a connection from now on. */
  expect(proxy: string, port: number): Reading {
    const reading: Reading = { messages: [], end: 'waiting', why: '' };
    this.#received.set(`${proxy} ${port}`, reading);
    return reading;
  }

  /** The connection is closed. */
  done(proxy: string, port: number): void {
    this.#received.delete(`${proxy} ${port}`);
  }

  /** Responds with these bytes to requests for `/respond/<id>`, and closes. */
  respond(id: string, bytes: Buffer): void {
    this.#responses.set(id, bytes);
  }

  forget(id: string): void {
    this.#responses.delete(id);
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    const parser = new Llhttp();
    let of: Reading | undefined;
    parser.onHead = () => {
      const { fields } = parser;
      const value = (name: string) =>
        fields[fields.findIndex((text, i) => i % 2 === 0 && text.toLowerCase() === name) + 1];
      of = this.#received.get(`${value('x-proxy')} ${value('x-case')}`);
      of?.messages.push(parser.reading.messages.at(-1)!);
      if (value('expect') === '100-continue') socket.write('HTTP/1.1 100 Continue\r\n\r\n');
    };
    parser.onMessage = () => {
      of = undefined;
      const [, id] = /^\S+ \/respond\/(\S+)$/.exec(parser.reading.messages.at(-1)!.start) ?? [];
      if (id === undefined) {
        if (parser.keepsAlive) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
        else socket.end('HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
      } else socket.end(this.#responses.get(id) ?? '');
    };
    socket.on('data', (bytes) => {
      parser.read(bytes);
      const { reading } = parser;
      if (reading.end === 'waiting') return;
      if (of && reading.end === 'refused' && reading.why !== 'HPE_INVALID_METHOD')
        of.why = `forwards what llhttp refuses: ${reading.why}`;
      socket.destroy();
    });
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.#sockets.delete(socket));
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}

async function freePort(): Promise<number> {
  const server = createServer();
  const port = await listen(server);
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** The gateway's engine and exchange over sockets, without its checks. */
export async function startOurs(origin: Origin): Promise<ProxyProgram> {
  const url = new URL(`http://127.0.0.1:${origin.port}`);
  const pool = new UpstreamPool(url);
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true, allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    const { remotePort } = socket;
    const peer = { ip: '127.0.0.1', trusted: false, isTrusted: () => false };
    new CallerConnection(socket, peer, {
      onRequest: (request) => {
        const target = admit(request);
        if (target === undefined) return;
        // An origin that closes behind a response which does not say so would fail the next request on that connection.
        const upstream = target.startsWith('/respond/') ? new UpstreamPool(url) : pool;
        const plan = planFor(request, target, upstream, `x-proxy: ours\r\nx-case: ${remotePort}\r\n`);
        new Exchange(request, plan, exchangeDeps).start();
      },
      onResponse: () => undefined,
      onClosed: () => sockets.delete(socket),
      onFault: (error) => {
        throw error;
      },
      date: '',
      isStopping: false,
      surplus: 0,
      nowMs: 0,
    });
  });
  const port = await listen(server);
  return {
    name: 'ours',
    port,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      pool.close();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

export async function startNginx(program: Program, origin: Origin): Promise<ProxyProgram> {
  const port = await freePort();
  return startProgram('nginx', port, program, (dir) => [
    `daemon off; master_process off; pid ${dir}/pid; error_log ${dir}/error.log crit;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 10000; lingering_close off; client_max_body_size 0;
  client_header_timeout 5s; client_body_timeout 5s; proxy_ignore_client_abort on; proxy_next_upstream off;
  client_body_temp_path ${dir}/body; proxy_temp_path ${dir}/proxy; fastcgi_temp_path ${dir}/f; uwsgi_temp_path ${dir}/u; scgi_temp_path ${dir}/s;
  upstream origin { server 127.0.0.1:${origin.port}; keepalive 64; }
  server {
    listen 127.0.0.1:${port};
    location / {
      proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header X-Proxy nginx; proxy_set_header X-Case $remote_port;
    }
    location /respond/ { proxy_pass http://127.0.0.1:${origin.port}; proxy_http_version 1.1; }
  }
}
`,
    ['-p', dir, '-c', `${dir}/configuration`, '-e', `${dir}/error.log`],
  ]);
}

export async function startHaproxy(program: Program, origin: Origin): Promise<ProxyProgram> {
  const port = await freePort();
  return startProgram('haproxy', port, program, (dir) => [
    `global
  maxconn 4096
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 5s
  timeout server 5s
  retries 0
frontend callers
  bind 127.0.0.1:${port}
  http-request set-header x-proxy haproxy
  http-request set-header x-case %[src_port]
  default_backend origin
backend origin
  server origin 127.0.0.1:${origin.port}
`,
    ['-db', '-f', `${dir}/configuration`],
  ]);
}

async function startProgram(
  name: string,
  port: number,
  program: Program,
  configure: (dir: string) => [configuration: string, args: string[]],
): Promise<ProxyProgram> {
  const dir = mkdtempSync(path.join(tmpdir(), `latchkey-${name}-`));
  const [configuration, args] = configure(dir);
  writeFileSync(path.join(dir, 'configuration'), configuration);
  let output = '';
  const child: ChildProcess = spawn(program.path, args, { env: program.env, stdio: ['ignore', 'ignore', 'pipe'] });
  child.stderr!.on('data', (text) => {
    output = (output + text).slice(-4_000);
  });
  const exited = new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
    child.once('error', () => resolve());
  });
  const end = () => void child.kill('SIGKILL');
  process.once('exit', end);
  const stop = async () => {
    process.off('exit', end);
    end();
    await exited;
    rmSync(dir, { recursive: true, force: true });
  };
  for (let tries = 0; !(await accepts(port)); tries++) {
    if (child.exitCode !== null || tries === 100) {
      await stop();
      throw new Error(`${name} did not start: ${output}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return { name, port, [Symbol.asyncDispose]: stop };
}

const accepts = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => resolve(true));
    socket.on('error', () => resolve(false));
    socket.on('connect', () => socket.destroy());
  });

/** Longer than the time limits of the proxies. */
const STUCK_MS = 15_000;

interface Talk {
  readonly bytes: Buffer;
  readonly port: number;
  readonly stuck: boolean;
}

/**
 * Sends bytes over a connection of their own and reads until the other side is closed.
 * @param onPort called with the local port before anything is sent
 * @param isOver asked whenever more was read, for a connection that stays open; undefined: this side is ended behind the bytes
 */
function talk(
  to: number,
  bytes: Buffer,
  onPort: (port: number) => void,
  isOver: ((read: string) => boolean) | undefined,
): Promise<Talk> {
  return new Promise((resolve) => {
    let read = '';
    let stuck = false;
    let port = 0;
    const socket = connect({ port: to, host: '127.0.0.1', noDelay: true, allowHalfOpen: true }, () => {
      port = socket.localPort!;
      onPort(port);
      if (!isOver) socket.end(bytes);
      else socket.write(bytes, () => isOver(read) && socket.destroy());
    });
    const timer = setTimeout(() => {
      stuck = true;
      socket.destroy();
    }, STUCK_MS);
    socket.on('data', (more) => {
      read += more.toString('latin1');
      if (isOver?.(read)) socket.destroy();
    });
    socket.on('end', () => socket.destroy());
    // A reset behind the responses is an end too.
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      clearTimeout(timer);
      resolve({ bytes: Buffer.from(read, 'latin1'), port, stuck });
    });
  });
}

const STATUS = /HTTP\/1\.[01] (\d{3})/g;

/**
 * What a proxy made of a stream of requests.
 * @param expected what ours, without sockets, made of it: the gateway keeps its connection open and treats a caller that ends
 *   its side as gone, so this is how many responses are awaited from it
 * @param staysOpen this side of the connection is not ended behind the bytes
 */
export async function proxyRequests(
  proxy: ProxyProgram,
  origin: Origin,
  { bytes }: Case,
  expected: Reading,
  staysOpen = proxy.name === 'ours',
): Promise<Reading> {
  const responses = expected.messages.filter(({ complete }) => complete).length;
  const isOver = (read: string) =>
    expected.end === 'waiting' && [...read.matchAll(/HTTP\/1\.1 200/g)].length >= responses;
  let reading: Reading | undefined;
  const onPort = (port: number) => {
    reading = origin.expect(proxy.name, port);
  };
  const answer = await talk(proxy.port, bytes, onPort, staysOpen ? isOver : undefined);
  origin.done(proxy.name, answer.port);
  const text = answer.bytes.toString('latin1');
  const status = [...text.matchAll(STATUS)].at(-1)?.[1] ?? '';
  const { messages, why } = reading ?? { messages: [], why: '' };
  if (why !== '') return { messages, end: 'refused', why };
  if (answer.stuck) return { messages, end: 'waiting', why: 'stuck' };
  if (Number(status) >= 400) return { messages, end: 'refused', why: status };
  return { messages, end: /\r\nconnection: close\r\n/i.test(text) ? 'closed' : 'waiting', why: '' };
}

/** What a proxy forwards of a response. */
export async function proxyResponse(proxy: ProxyProgram, origin: Origin, id: string, made: Case): Promise<Reading> {
  const { bytes, method, minor } = made;
  origin.respond(id, bytes);
  const request = `${method} /respond/${id} HTTP/1.${minor}\r\nHost: g\r\nConnection: close\r\n\r\n`;
  const answer = await talk(
    proxy.port,
    Buffer.from(request),
    () => undefined,
    () => false,
  );
  origin.forget(id);
  const reading = llhttpResponse(answer.bytes, [answer.bytes.length], method);
  if (answer.stuck) return { ...reading, end: 'waiting', why: 'stuck' };
  const final = reading.messages.findLast(({ start }) => Number(start) >= 200);
  if (final?.start === '502' || final?.start === '504')
    return { messages: reading.messages.filter((message) => message !== final), end: 'refused', why: final.start };
  return reading;
}
