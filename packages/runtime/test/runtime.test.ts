import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Writable } from 'node:stream';
import { z } from 'zod';
import {
  ConfigError,
  checkRedis,
  createLogger,
  createRedis,
  createRegistry,
  decryptionKey,
  decryptWith,
  encryptFor,
  encryptionKey,
  loadConfig,
  newId,
  readiness,
  secretMatcher,
  settingSchema,
  startOps,
} from '../src/index.js';

describe('loadConfig', () => {
  const settings = {
    PORT: { description: 'Public port', default: '8080', schema: settingSchema.port },
    RPC_SECRET: { description: 'Shared by services', secret: true, schema: settingSchema.secret },
    NOTE: { description: 'Anything', schema: z.string().optional() },
  };

  it('names every invalid setting and never shows a secret', () => {
    try {
      loadConfig(settings, { PORT: '99999', RPC_SECRET: 'tooshort-hunter2' });
      throw new Error('accepted');
    } catch (error) {
      expect(error).toBeInstanceOf(ConfigError);
      expect((error as Error).message).toContain('PORT: must be at most 65535 (it is "99999")');
      expect((error as Error).message).toContain('RPC_SECRET: must have at least 32 characters');
      expect((error as Error).message).not.toContain('hunter2');
    }
    expect(() => loadConfig(settings, {})).toThrow('RPC_SECRET is required: Shared by services');
  });

  it('reads a value from the file that NAME_FILE names', () => {
    const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-config-'));
    try {
      const file = path.join(dir, 'secret');
      writeFileSync(file, `${'s'.repeat(40)}\n`);
      expect(loadConfig(settings, { RPC_SECRET_FILE: file })).toEqual({
        PORT: 8080,
        RPC_SECRET: 's'.repeat(40),
        NOTE: undefined,
      });
      expect(() => loadConfig(settings, { RPC_SECRET_FILE: file, RPC_SECRET: 'x'.repeat(40) })).toThrow('both set');
      expect(() => loadConfig(settings, { RPC_SECRET_FILE: path.join(dir, 'absent') })).toThrow('cannot read');
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});

describe('a list of secrets', () => {
  const settings = { S: { description: 'Secrets', secret: true, schema: settingSchema.secretList } };
  const [one, two] = ['1'.repeat(32), '2'.repeat(32)];

  it('is parsed in order; short secrets, duplicates and long lists are rejected', () => {
    expect(loadConfig(settings, { S: ` ${one} , ${two}` }).S).toEqual([one, two]);
    for (const text of [
      `${one},`,
      `${one},${one}`,
      'short',
      ',',
      Array.from({ length: 9 }, (_, i) => `${i}${one}`).join(),
    ])
      expect(() => loadConfig(settings, { S: text })).toThrow('S: ');
  });

  it('matches exactly its secrets', () => {
    const isOne = secretMatcher([one, two]);
    expect([one, two, `${one},${two}`, one.slice(1), `${one} `, ''].map(isOne)).toEqual([
      true,
      true,
      ...Array(4).fill(false),
    ]);
    expect(secretMatcher([])('')).toBe(false);
  });
});

describe('encrypting to a key', () => {
  const key = decryptionKey('k'.repeat(32));
  const publicKey = encryptionKey(key.text);

  it('can be decrypted only with the secret of the key, in the same context', () => {
    const encrypted = encryptFor(publicKey, 'a code', 'email 1');
    expect(publicKey.id).toBe(decryptionKey('k'.repeat(32)).id);
    expect(decryptWith(key, encrypted, 'email 1')).toBe('a code');
    expect(decryptWith(key, encrypted, 'email 2')).toBe(null);
    expect(decryptWith(decryptionKey('l'.repeat(32)), encrypted, 'email 1')).toBe(null);
    expect(encrypted.includes('a code')).toBe(false);
    expect(encryptFor(publicKey, 'a code', 'email 1').equals(encrypted)).toBe(false);
  });

  it('cannot be decrypted once any byte has changed or is missing', () => {
    const encrypted = encryptFor(publicKey, 'a code', '');
    for (let i = 0; i < encrypted.length; i++) {
      const changed = Buffer.from(encrypted);
      changed[i]! ^= 1;
      expect([i, decryptWith(key, changed, '')]).toEqual([i, null]);
      expect(decryptWith(key, encrypted.subarray(0, i), '')).toBe(null);
    }
    expect(decryptWith(key, Buffer.concat([encrypted, Buffer.of(0)]), '')).toBe(null);
  });

  it('rejects malformed and low-order public keys', () => {
    const zero = Buffer.alloc(32).toString('base64url');
    const one = Buffer.from([1, ...Array(31).fill(0)]).toString('base64url');
    for (const text of ['', 'x', key.text.slice(1), `${key.text}A`, `${key.text}=`, zero, one])
      expect(() => encryptionKey(text)).toThrow();
  });
});

describe('newId', () => {
  it('generates ascending UUIDv7s, also within a millisecond and when the clock steps back', () => {
    const ids = [
      newId(1_800_000_000_000),
      ...Array.from({ length: 10_000 }, () => newId(1_800_000_000_000)),
      newId(1_700_000_000_000),
    ];
    for (const id of ids) expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    expect([...ids].sort()).toEqual(ids);
    expect(new Set(ids).size).toBe(ids.length);
  });
});

it('keeps secrets out of log lines', () => {
  let text = '';
  const sink = new Writable({
    write(chunk, _encoding, done) {
      text += chunk;
      done();
    },
  });
  const logger = createLogger('test', 'info', sink);
  logger.info(
    {
      secret: 'hunter2',
      req: { headers: { authorization: 'Bearer hunter2', cookie: 'hunter2' } },
      body: { password: 'hunter2', token: 'hunter2' },
    },
    'line',
  );
  expect(text).toContain('"msg":"line"');
  expect(text).not.toContain('hunter2');
});

it('is ready only when every check passes, and names those that fail', async () => {
  const result = await readiness(
    {
      good: async () => undefined,
      bad: () => Promise.reject(new Error('refused')),
      stuck: () => new Promise(() => undefined),
    },
    30,
  );
  expect(result).toEqual({ ready: false, checks: { good: 'ok', bad: 'refused', stuck: 'no response within 30 ms' } });
});

describe('the ops port', () => {
  it('says which build is running', async () => {
    const registry = createRegistry('test', '1.2.3');
    const ops = await startOps({ host: '127.0.0.1', port: 0, version: '1.2.3', registry, checks: {} });
    try {
      const url = `http://127.0.0.1:${(ops.address() as AddressInfo).port}`;
      expect(await (await fetch(`${url}/readyz`)).json()).toEqual({ status: 'ready', version: '1.2.3', checks: {} });
      const metrics = await (await fetch(`${url}/metrics`)).text();
      const labels = `version="1.2.3",revision="unknown",node="${process.versions.node}",service="test"`;
      expect(metrics).toContain(`latchkey_build_info{${labels}} 1`);
    } finally {
      ops.closeAllConnections();
      await new Promise((closed) => ops.close(closed));
    }
  });
});

describe('Redis', () => {
  it('is refused when it is a Sentinel', async () => {
    const sentinel = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.on('data', (data) => {
        for (const [, command] of data.toString().matchAll(/\*\d+\r\n\$\d+\r\n(\w+)/g)) {
          const info = 'redis_version:7.0.0\r\nredis_mode:sentinel\r\n';
          socket.write(command?.toUpperCase() === 'INFO' ? `$${info.length}\r\n${info}\r\n` : '+OK\r\n');
        }
      });
    });
    sentinel.listen(0, '127.0.0.1');
    await once(sentinel, 'listening');
    const logger = createLogger('test', 'silent');
    const redis = createRedis(`redis://127.0.0.1:${(sentinel.address() as AddressInfo).port}`, 'test', logger);
    await expect(checkRedis(redis, logger)).rejects.toThrow('REDIS_URL names a Sentinel, which is not supported');
    redis.disconnect();
    sentinel.close();
  });

  it('that is unavailable does not keep a service from starting', async () => {
    const logger = createLogger('test', 'silent');
    const redis = createRedis('redis://127.0.0.1:1', 'test', logger);
    await checkRedis(redis, logger);
    redis.disconnect();
  });
});
