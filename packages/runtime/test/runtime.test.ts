import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Writable } from 'node:stream';
import { z } from 'zod';
import { ConfigError, createLogger, loadConfig, newId, readiness, settingSchema } from '../src/index.js';

describe('loadConfig', () => {
  const settings = {
    PORT: { description: 'Public port', default: '8080', schema: settingSchema.port },
    RPC_SECRET: { description: 'Shared by services', secret: true, schema: settingSchema.secret },
    NOTE: { description: 'Anything', schema: z.string().optional() },
  };

  it('names every wrong setting and never shows a secret', () => {
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

describe('newId', () => {
  it('makes UUIDv7s that rise in the order they were made, also within a millisecond and when the clock steps back', () => {
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

it('is ready only when every part is, and says which is not', async () => {
  const result = await readiness(
    {
      good: async () => undefined,
      bad: () => Promise.reject(new Error('refused')),
      stuck: () => new Promise(() => undefined),
    },
    30,
  );
  expect(result).toEqual({ ready: false, checks: { good: 'ok', bad: 'refused', stuck: 'no answer within 30 ms' } });
});
