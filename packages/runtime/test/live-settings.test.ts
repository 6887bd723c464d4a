import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import {
  always,
  type Config,
  ConfigError,
  createRegistry,
  LiveSettings,
  loadConfig,
  onlyPassword,
  settingSchema,
} from '@latchkey/runtime';
import { z } from 'zod';

const settings = {
  SENT: { description: 'list', secret: true, schema: settingSchema.secretList },
  ADDRESS: { description: 'address', secret: true, schema: settingSchema.url('redis:') },
  FIXED: { description: 'read at the start', secret: true, schema: settingSchema.secret },
  OPTIONAL: { description: 'optional', secret: true, schema: z.string().min(4).optional() },
};
type C = Config<typeof settings>;
const secret = (letter: string) => letter.repeat(32);

/** Settings in files of a folder of their own; no two may be equal. */
function given(more: Record<string, string> = {}) {
  const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-settings-'));
  const write = (name: string, text: string) => writeFileSync(path.join(dir, name), text);
  const first = { SENT: secret('a'), ADDRESS: 'redis://:one@localhost:6379', FIXED: secret('b'), ...more };
  const env: NodeJS.ProcessEnv = {};
  for (const [name, text] of Object.entries(first)) {
    write(name, `${text}\n`);
    env[`${name}_FILE`] = path.join(dir, name);
  }
  const lines: string[] = [];
  const log = (fields: unknown, message = '') => void lines.push(`${JSON.stringify(fields)} ${message}`);
  const live = new LiveSettings<C>({
    env,
    settings,
    load: (from) => {
      const config = loadConfig(settings, from);
      if (config.SENT.includes(config.FIXED)) throw new ConfigError(['SENT and FIXED hold the same secret']);
      return config;
    },
    live: { SENT: always, ADDRESS: onlyPassword },
    logger: { info: log, warn: log, error: log } as never,
  });
  const twice = async () => {
    await live.check();
    await live.check();
  };
  return {
    ...{ dir, env, write, live, lines, twice },
    problem: () =>
      live.mustBeInUse().then(
        () => undefined,
        ({ message }: Error) => message,
      ),
    [Symbol.dispose]: () => rmSync(dir, { recursive: true, force: true }),
  };
}

it('takes over what is live, once it was read twice the same, and logs no value', async () => {
  using g = given();
  expect(g.live.config.SENT).toEqual([secret('a')]);
  g.write('SENT', `${secret('c')},${secret('a')}\n`);
  await g.live.check();
  expect(g.live.config.SENT).toEqual([secret('a')]);
  await g.live.check();
  expect(g.live.config.SENT).toEqual([secret('c'), secret('a')]);
  expect(g.lines).toEqual([expect.stringContaining('SENT_FILE has changed: its new value is in use')]);
  expect(g.lines.join()).not.toMatch(/aaaa|cccc/);
  expect(await g.problem()).toBeUndefined();
});

it('says once of what needs a restart that it does, in a metric and in readiness too, until it is put back', async () => {
  using g = given();
  const registry = createRegistry('test', '0.0.0');
  g.live.registerMetrics(registry);
  const pending = async () => (await registry.metrics()).match(/latchkey_settings_pending\{name="FIXED".*\} (\d)/)?.[1];
  expect(await pending()).toBe('0');
  g.write('FIXED', secret('d'));
  for (let i = 0; i < 4; i++) await g.live.check();
  const text = 'FIXED_FILE has changed: restart this service to use it';
  expect(g.lines).toEqual([expect.stringContaining(text)]);
  expect([g.live.config.FIXED, await g.problem(), await pending()]).toEqual([secret('b'), text, '1']);
  g.write('FIXED', secret('b'));
  await g.twice();
  expect([await g.problem(), await pending()]).toEqual([undefined, '0']);
});

it('takes over an address whose password alone has changed, and no other address', async () => {
  using g = given();
  g.write('ADDRESS', 'redis://:two@localhost:6379');
  await g.twice();
  expect(g.live.config.ADDRESS).toBe('redis://:two@localhost:6379');
  g.write('ADDRESS', 'redis://:two@elsewhere:6379');
  await g.twice();
  expect([g.live.config.ADDRESS, g.live.pending]).toEqual(['redis://:two@localhost:6379', ['ADDRESS']]);
});

it.each([
  ['empty', '', 'is empty'],
  ['half-written', 'cc', 'each secret must have at least 32 characters'],
  ['not allowed together with another', secret('b'), 'SENT and FIXED hold the same secret'],
])('changes nothing for a file that is %s, names it once, and takes the others', async (_what, text, reason) => {
  using g = given();
  g.write('SENT', text);
  g.write('ADDRESS', 'redis://:two@localhost:6379');
  for (let i = 0; i < 4; i++) await g.live.check();
  expect(g.live.config).toMatchObject({ SENT: [secret('a')], ADDRESS: 'redis://:two@localhost:6379' });
  expect(await g.problem()).toMatch(new RegExp(`^SENT_FILE: .*${reason}`));
  expect(g.lines.filter((line) => line.includes(reason))).toHaveLength(1);
  await expect(g.live.reload()).rejects.toThrow(reason);
  g.write('SENT', secret('e'));
  await g.live.reload();
  expect([g.live.config.SENT, await g.problem()]).toEqual([[secret('e')], undefined]);
});

it('changes nothing when a file is gone, an optional one too', async () => {
  using g = given({ OPTIONAL: 'given' });
  rmSync(path.join(g.dir, 'OPTIONAL'));
  g.write('SENT', secret('c'));
  await g.twice();
  expect(g.live.config).toMatchObject({ OPTIONAL: 'given', SENT: [secret('c')] });
  expect(await g.problem()).toMatch(/OPTIONAL_FILE: cannot read .* \(ENOENT\)/);
});

it('accepts two that have swapped their values', async () => {
  using g = given();
  g.write('SENT', secret('b'));
  g.write('FIXED', secret('a'));
  await g.twice();
  expect([g.live.config.SENT, g.live.pending]).toEqual([[secret('b')], ['FIXED']]);
});

it('reads at the start what the files hold, and names what is wrong with them', () => {
  expect(() => given({ FIXED: 'short' })).toThrow('FIXED: must have at least 32 characters');
  expect(() => given({ FIXED: '' })).toThrow(/FIXED/);
});
