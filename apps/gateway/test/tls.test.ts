import { EventEmitter, once } from 'node:events';
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { Agent, request as httpsRequest } from 'node:https';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type ConnectionOptions, connect as tlsConnect } from 'node:tls';
import { createLogger, listen } from '@latchkey/runtime';
import { selfSigned, waitFor } from '@latchkey/testing';
import { CertificateWatch, readCertificate } from '../src/certificate.js';
import { gatewayConfig } from '../src/config.js';
import { HEAD_TIMEOUT_MS } from '../src/engine/caller-limits.js';
import { Handshakes } from '../src/engine/handshakes.js';
import { type CallerRequest, HttpServer } from '../src/engine/index.js';
import { CREDENTIALS, raw, type Stack, stack } from './stack.js';

const GET = 'GET /open/x HTTP/1.1\r\nHost: g\r\n\r\n';

/** Files of a certificate and its key, as settings. */
function files(pair = selfSigned()) {
  const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-tls-'));
  const env = { TLS_CERTIFICATE_FILE: path.join(dir, 'fullchain.pem'), TLS_KEY_FILE: path.join(dir, 'privkey.pem') };
  const write = ({ cert, key }: Partial<typeof pair>) => {
    if (cert !== undefined) writeFileSync(env.TLS_CERTIFICATE_FILE, cert);
    if (key !== undefined) writeFileSync(env.TLS_KEY_FILE, key);
  };
  write(pair);
  const pairs = { certificate: env.TLS_CERTIFICATE_FILE, key: env.TLS_KEY_FILE };
  return { dir, env, pairs, write, [Symbol.dispose]: () => rmSync(dir, { recursive: true, force: true }) };
}

/** A connection whose handshake is complete, and all that it has brought. */
async function secure(port: number, options: ConnectionOptions = {}) {
  const socket = tlsConnect({ port, host: '127.0.0.1', rejectUnauthorized: false, ...options });
  let text = '';
  socket.on('data', (bytes) => {
    text += bytes.toString('latin1');
  });
  await once(socket, 'secureConnect');
  socket.on('error', () => undefined);
  return { socket, text: () => text, fingerprint: socket.getPeerX509Certificate()!.fingerprint256 };
}
describe('a gateway whose public port speaks TLS', () => {
  const pair = selfSigned();
  let f: ReturnType<typeof files>;
  let s: Stack;
  beforeAll(async () => {
    f = files(pair);
    s = await stack(
      (upstream) => `routes:\n  - { name: open, path: /open/*, upstream: "${upstream}", public: true }\n`,
      f.env,
    );
  });
  afterAll(async () => {
    await s[Symbol.asyncDispose]();
    f[Symbol.dispose]();
  });

  it('serves requests, and says that they came over https', async () => {
    expect(s.gateway.url).toBe(`https://127.0.0.1:${s.gateway.port}`);
    const agent = new Agent({ ca: pair.cert, keepAlive: true, maxSockets: 1 });
    for (let i = 0; i < 3; i++) {
      const request = httpsRequest(`${s.gateway.url}/open/x`, { agent }).end();
      const [response] = await once(request, 'response');
      expect(response.statusCode).toBe(200);
      expect(request.reusedSocket).toBe(i > 0);
      await once(response.resume(), 'end');
    }
    agent.destroy();
    expect(s.upstream.lastHeader('x-forwarded-proto')).toBe('https');
  });

  it.each(['TLSv1.2', 'TLSv1.3'] as const)('speaks %s, and HTTP/1.1 only', async (version) => {
    const { socket } = await secure(s.gateway.port, {
      minVersion: version,
      maxVersion: version,
      ALPNProtocols: ['h2', 'http/1.1'],
    });
    expect([socket.getProtocol(), socket.alpnProtocol]).toEqual([version, 'http/1.1']);
    socket.destroy();
    await expect(secure(s.gateway.port, { ALPNProtocols: ['h2'] })).rejects.toThrow(/no application protocol/i);
  });

  it('refuses older versions', async () => {
    const old = { minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' } as const;
    await expect(secure(s.gateway.port, old)).rejects.toThrow();
  });

  it('responds to plain HTTP in plain HTTP, and closes what is neither', async () => {
    const { status, body, text } = await raw(s.gateway.port, GET);
    expect([status, JSON.parse(body).code]).toEqual([400, 'invalid_request']);
    expect(text).toContain('connection: close');
    expect((await raw(s.gateway.port, Buffer.from([0, 1, 2, 3]))).text).toBe('');
    expect((await raw(s.gateway.port, 'SSH-2.0-OpenSSH_9.9\r\n')).text).toBe('');
    await waitFor(() => s.gateway.openConnections() === 0);
  });

  it('survives a caller that leaves, or sends nonsense, within the handshake', async () => {
    for (const bytes of [Buffer.from([0x16]), Buffer.from('1603010005ffffffffff', 'hex')]) {
      for (const how of ['destroy', 'resetAndDestroy'] as const) {
        const socket = connect(s.gateway.port, '127.0.0.1');
        socket.on('error', () => undefined);
        await once(socket, 'connect');
        await new Promise<void>((resolve) => void socket.write(bytes, () => resolve()));
        socket[how]();
      }
    }
    const { socket, text } = await secure(s.gateway.port);
    socket.write(GET);
    await waitFor(() => text().endsWith('ok'));
    socket.destroy();
    await waitFor(() => s.gateway.openConnections() === 0);
  });

  it('keeps a connection whose certificate is replaced, and uses the new one for others', async () => {
    const kept = await secure(s.gateway.port);
    const other = selfSigned();
    f.write(other);
    await waitFor(
      async () => {
        const now = await secure(s.gateway.port);
        now.socket.destroy();
        return now.fingerprint !== kept.fingerprint;
      },
      { timeoutMs: 30_000 },
    );
    kept.socket.write(GET);
    await waitFor(() => kept.text().endsWith('ok'));
    kept.socket.destroy();
    // One that cannot be used changes nothing but what is told.
    f.write({ cert: 'half of' });
    const ready = async () => JSON.parse((await raw(s.gateway.opsPort, READY)).body);
    await waitFor(async () => (await ready()).warnings !== undefined, { timeoutMs: 30_000 });
    expect(await ready()).toMatchObject({
      status: 'ready',
      warnings: { 'tls-certificate': expect.stringContaining('not a PEM file') },
    });
    const metrics = (await raw(s.gateway.opsPort, READY.replace('/readyz', '/metrics'))).body;
    expect(metrics).toMatch(/latchkey_gateway_tls_certificate_reload_failed\{[^}]*\} 1\n/);
    expect(metrics).toMatch(/latchkey_gateway_tls_certificate_expiry_seconds\{[^}]*\} 3[0-9]{3}\n/);
    (await secure(s.gateway.port)).socket.destroy();
    f.write(other);
    await waitFor(async () => (await ready()).warnings === undefined, { timeoutMs: 30_000 });
  });
});

const READY = 'GET /readyz HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n';

describe('a TLS port', () => {
  async function server(onRequest: (request: CallerRequest) => void, connectionsMax = 100) {
    const http = new HttpServer({
      onRequest,
      onResponse: () => undefined,
      isTrustedProxy: () => false,
      logger: createLogger('test', 'fatal'),
      connectionsMax,
      tls: selfSigned(),
    });
    await listen(http.server, 0, '127.0.0.1');
    return { http, port: (http.server.address() as { port: number }).port };
  }

  it('counts connections that never begin a handshake, and closes them at the time limit', async () => {
    const { http, port } = await server((request) => request.respond(200, 'OK', '', 'ok'), 2);
    const silent = [connect(port, '127.0.0.1'), connect(port, '127.0.0.1')];
    silent[1]!.write(Buffer.from([0x16, 3, 1]));
    await waitFor(() => http.connections === 2);
    await expect(secure(port)).rejects.toThrow();
    for (const socket of silent) socket.destroy();
    await waitFor(() => http.connections === 0);
    await http.close();

    const handshakes = new Handshakes(selfSigned(), () => undefined);
    let destroyed = 0;
    const waiting = Object.assign(new EventEmitter(), { destroy: () => destroyed++ });
    handshakes.add(waiting as unknown as Socket, 1_000);
    handshakes.tick(1_000 + HEAD_TIMEOUT_MS - 1, HEAD_TIMEOUT_MS);
    expect(destroyed).toBe(0);
    handshakes.tick(1_000 + HEAD_TIMEOUT_MS, HEAD_TIMEOUT_MS);
    expect(destroyed).toBe(1);
  });

  it('brings a large response to a slow caller, and a large body to a slow upstream, byte for byte', async () => {
    const size = 20_000_000;
    const body = Buffer.alloc(size, 'abcdefg');
    let sent = 0;
    const { http, port } = await server((request) => {
      if (!request.head.hasBody) return void request.respond(200, 'OK', '', body);
      request.readBody({
        onBody: (bytes) => {
          sent += bytes.length;
          request.pauseBody();
          setImmediate(() => request.resumeBody());
        },
        onBodyEnd: () => request.respond(200, 'OK', '', `${sent}`),
        onBodyMalformed: () => undefined,
      });
    });
    const { socket } = await secure(port);
    socket.pause();
    let read = 0;
    let matches = true;
    socket.write(GET);
    socket.removeAllListeners('data');
    let head: Buffer | undefined = Buffer.alloc(0);
    socket.on('data', (bytes: Buffer) => {
      let part = bytes;
      if (head) {
        head = Buffer.concat([head, bytes]);
        const end = head.indexOf('\r\n\r\n');
        if (end < 0) return;
        part = head.subarray(end + 4);
        head = undefined;
      }
      const from = read % 7;
      matches &&= part.equals(body.subarray(from, from + part.length));
      read += part.length;
    });
    socket.resume();
    await waitFor(() => read === size, { timeoutMs: 50_000 });
    expect(matches).toBe(true);
    socket.destroy();
    const other = await secure(port);
    other.socket.write(`POST / HTTP/1.1\r\nHost: g\r\nContent-Length: ${size}\r\n\r\n`);
    other.socket.write(body);
    await waitFor(() => other.text().endsWith(`${size}`), { timeoutMs: 50_000 });
    other.socket.destroy();
    await http.close();
  });

  it('ends idle connections with close_notify, and shows a broken response by a reset', async () => {
    const { http, port } = await server((request) => {
      request.begin(200, 'OK', '', 'close', -1, false, 'part');
      if (request.head.target === '/broken') request.destroy();
    });
    const broken = await secure(port);
    const fault = once(broken.socket, 'error');
    broken.socket.write(GET.replace('/open/x', '/broken'));
    expect((await fault)[0]).toMatchObject({ code: 'ECONNRESET' });
    const idle = await secure(port);
    const ended = once(idle.socket, 'end');
    const closed = http.close();
    await ended;
    idle.socket.end();
    await closed;
  });
});

describe('a pair of files', () => {
  const other = selfSigned();
  const good = selfSigned();
  const day = 86_400_000;

  it.each([
    ['that is missing', { cert: undefined, key: good.key }, /TLS_CERTIFICATE_FILE: .* cannot be read \(ENOENT\)/],
    ['that is no certificate', { cert: 'nonsense', key: good.key }, /TLS_CERTIFICATE_FILE: .* not a PEM file/],
    ['of which a half is written', { cert: good.cert.slice(0, 300), key: good.key }, /only a part of one/],
    [
      'whose chain is written in part',
      { cert: `${good.cert}${other.cert.slice(0, 99)}`, key: good.key },
      /only a part/,
    ],
    ['whose key is no key', { cert: good.cert, key: 'nonsense' }, /TLS_KEY_FILE: .* is not a private key in PEM/],
    ['whose key is another one', { cert: good.cert, key: other.key }, /TLS_KEY_FILE: .* is not the key of the first/],
    [
      'that has expired',
      selfSigned('127.0.0.1', [-2 * day, -day]),
      /TLS_CERTIFICATE_FILE: .* has expired at .*; renew it/,
    ],
    ['that is not valid yet', selfSigned('127.0.0.1', [day, 2 * day]), /TLS_CERTIFICATE_FILE: .* is valid only from/],
  ])(
    '%s is an error at the start, with what to do, and no reason to leave the previous pair',
    async (_, pair, error) => {
      using f = files(good);
      const previous = readCertificate(f.pairs, Date.now());
      const lines: object[] = [];
      const used: object[] = [];
      const log = (fields: object) => void lines.push(fields);
      const watch = new CertificateWatch(previous, {
        files: f.pairs,
        use: (credentials) => void used.push(credentials),
        logger: { info: log, error: log, debug: log } as never,
        logs: true,
      });
      rmSync(f.env.TLS_CERTIFICATE_FILE);
      f.write(pair as { cert: string });
      expect(() => readCertificate(f.pairs, Date.now())).toThrow(error);
      // It can still be written: only what stays is told, and once.
      await watch.check();
      expect(watch.fault).toBeUndefined();
      for (let i = 0; i < 3; i++) await watch.check();
      expect(watch.fault).toMatch(error);
      expect([used, lines]).toEqual([[], [{ reason: watch.fault, secondsLeft: expect.any(Number) }]]);
      f.write(other);
      for (let i = 0; i < 2; i++) await watch.check();
      expect(watch.fault).toBeUndefined();
      expect(used).toMatchObject([other]);
    },
  );

  it('is noticed when the links that lead to it are replaced', async () => {
    using f = files(good);
    const link = path.join(f.dir, 'live');
    const write = (version: string, pair: typeof good) => {
      mkdirSync(path.join(f.dir, version));
      writeFileSync(path.join(f.dir, version, 'tls.crt'), pair.cert);
      writeFileSync(path.join(f.dir, version, 'tls.key'), pair.key);
      symlinkSync(version, `${link}.new`);
      renameSync(`${link}.new`, link);
    };
    write('1', good);
    const used: { cert: string }[] = [];
    const pairs = { certificate: path.join(link, 'tls.crt'), key: path.join(link, 'tls.key') };
    const watch = new CertificateWatch(readCertificate(pairs, Date.now()), {
      files: pairs,
      use: (credentials) => void used.push(credentials),
      logger: createLogger('test', 'fatal'),
      logs: true,
    });
    write('2', other);
    for (let i = 0; i < 3; i++) await watch.check();
    expect(used.map(({ cert }) => cert)).toEqual([other.cert]);
  });

  it('that is for another host does not take the place of one that works', async () => {
    using f = files(good);
    const used: unknown[] = [];
    const watch = new CertificateWatch(readCertificate(f.pairs, Date.now()), {
      files: f.pairs,
      use: (credentials) => void used.push(credentials),
      logger: createLogger('test', 'fatal'),
      logs: true,
    });
    const foreign = selfSigned('other.example.org');
    writeFileSync(f.pairs.certificate, foreign.cert);
    writeFileSync(f.pairs.key, foreign.key);
    for (let i = 0; i < 3; i++) await watch.check();
    expect(used).toEqual([]);
    expect(watch.fault).toMatch(/is for DNS:other\.example\.org, and the one in use for IP Address:127\.0\.0\.1/);
  });

  it('that expires while it is used stays in use and is told', async () => {
    using f = files(good);
    let nowMs = Date.now();
    const errors: string[] = [];
    const watch = new CertificateWatch(readCertificate(f.pairs, nowMs), {
      files: f.pairs,
      use: () => undefined,
      logger: { error: (_: object, message: string) => void errors.push(message) } as never,
      logs: true,
      wallMs: () => nowMs,
    });
    nowMs += day;
    for (let i = 0; i < 3; i++) await watch.check();
    expect(watch.secondsLeft).toBeLessThan(0);
    expect([errors.length, watch.fault]).toEqual([1, expect.stringContaining('has expired')]);
    // A process that starts beside others that use it is better than none.
    expect(readCertificate(f.pairs, nowMs, true).cert).toBe(good.cert);
  });

  it('is set as a whole, with a public address of https', () => {
    const config = (env: Record<string, string>) => () => gatewayConfig({ ...CREDENTIALS, ...env });
    const both = { TLS_CERTIFICATE_FILE: '/a', TLS_KEY_FILE: '/b' };
    expect(config({ TLS_KEY_FILE: '/b' })).toThrow(/TLS_CERTIFICATE_FILE and TLS_KEY_FILE: set both, or neither/);
    expect(config({ ...both, PUBLIC_URL: 'http://a.example' })).toThrow(/PUBLIC_URL must begin with https/);
    expect(config({ ...both, PUBLIC_URL: 'https://a.example' })()).toMatchObject(both);
  });
});
