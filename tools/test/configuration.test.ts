import { readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from '@jest/globals';
import { generate } from '../docs/configuration.mjs';
import { root } from '../lib/repository.mjs';

interface Setting {
  description: string;
  default?: string;
  secret?: boolean;
}

/** Each row of the table: name, meaning, when absent, services. */
const rows = async () =>
  (await generate())['configuration.md']
    .split('## npm start')[0]!
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) => line.slice(2, -2).split(' | '));

test.each(['token-service', 'gateway', 'jobs'])('the table contains each setting of %s', async (app) => {
  const { settings } = (await import(path.join(root, 'apps', app, 'dist', 'config.js'))) as {
    settings: Record<string, Setting>;
  };
  const all = await rows();
  for (const [name, setting] of Object.entries(settings)) {
    const own = all.filter(([variable, , , apps]) => variable === `\`${name}\`` && apps!.split(', ').includes(app));
    expect(own).toHaveLength(1);
    expect(own[0]![1]).toBe(setting.description);
    if (setting.default && !setting.secret) expect(own[0]![2]).toBe(`\`${setting.default}\``);
  }
});

test('the table in docs is up to date', async () => {
  const written = readFileSync(path.join(root, 'docs/generated/configuration.md'), 'utf8');
  expect(written).toBe((await generate())['configuration.md']);
});
