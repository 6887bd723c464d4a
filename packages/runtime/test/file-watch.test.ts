import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { FileWatch } from '@latchkey/runtime';

/** A watched file in a folder of its own. What begins with `bad` is invalid, `stuck` is not used everywhere. */
function watched(first = 'one') {
  const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-watch-'));
  const file = path.join(dir, 'file');
  writeFileSync(file, first);
  const used: string[] = [];
  const faults: string[] = [];
  const unchanged: number[] = [];
  const watch = new FileWatch<string>(first, {
    read: async () => {
      const content = await readFile(file, 'utf8');
      if (content.startsWith('bad')) throw new Error(`cannot use ${content}`);
      return { key: content, content };
    },
    use: async (content) => {
      used.push(content);
      if (content === 'stuck') throw new Error('not used everywhere');
    },
    onFault: ({ message }) => void faults.push(message),
    onUnchanged: () => void unchanged.push(1),
  });
  return {
    dir,
    file,
    used,
    faults,
    unchanged,
    watch,
    [Symbol.dispose]: () => rmSync(dir, { recursive: true, force: true }),
  };
}

it('uses what it has read twice the same, once', async () => {
  using w = watched();
  for (let i = 0; i < 3; i++) await w.watch.check();
  expect(w.used).toEqual([]);
  writeFileSync(w.file, 'half');
  await w.watch.check();
  writeFileSync(w.file, 'half and half');
  await w.watch.check();
  expect(w.used).toEqual([]);
  for (let i = 0; i < 3; i++) await w.watch.check();
  expect(w.used).toEqual(['half and half']);
});

it.each([
  ['written in place', (file: string) => writeFileSync(file, 'two')],
  [
    'renamed over it',
    (file: string) => {
      writeFileSync(`${file}.new`, 'two');
      renameSync(`${file}.new`, file);
    },
  ],
  [
    'removed and created',
    (file: string) => {
      rmSync(file);
      writeFileSync(file, 'two');
    },
  ],
])('notices a file that is %s', async (_how, replace) => {
  using w = watched();
  await w.watch.check();
  replace(w.file);
  await w.watch.check();
  await w.watch.check();
  expect(w.used).toEqual(['two']);
});

it('notices a link to a folder that is swapped, as Kubernetes does', async () => {
  using w = watched();
  const publish = (name: string, content: string) => {
    mkdirSync(path.join(w.dir, name));
    writeFileSync(path.join(w.dir, name, 'file'), content);
    symlinkSync(name, path.join(w.dir, 'data.next'));
    renameSync(path.join(w.dir, 'data.next'), path.join(w.dir, 'data'));
  };
  publish('first', 'one');
  rmSync(w.file);
  symlinkSync(path.join('data', 'file'), w.file);
  await w.watch.check();
  publish('second', 'two');
  expect(readFileSync(w.file, 'utf8')).toBe('two');
  await w.watch.check();
  await w.watch.check();
  expect(w.used).toEqual(['two']);
});

it('keeps what is in use when a file is wrong or gone, says why once, and tries again', async () => {
  using w = watched();
  writeFileSync(w.file, 'bad');
  for (let i = 0; i < 4; i++) await w.watch.check();
  expect([w.used, w.faults, w.watch.fault]).toEqual([[], ['cannot use bad'], 'cannot use bad']);
  rmSync(w.file);
  for (let i = 0; i < 4; i++) await w.watch.check();
  expect(w.faults).toEqual(['cannot use bad', expect.stringContaining('ENOENT')]);
  writeFileSync(w.file, 'one');
  for (let i = 0; i < 4; i++) await w.watch.check();
  expect([w.used, w.watch.fault, w.unchanged]).toEqual([[], undefined, [1]]);
});

it('uses at once what it is asked to read, and says each time why it cannot', async () => {
  using w = watched();
  writeFileSync(w.file, 'two');
  await w.watch.now();
  expect(w.used).toEqual(['two']);
  writeFileSync(w.file, 'bad');
  for (let i = 0; i < 2; i++) await expect(w.watch.now()).rejects.toThrow('cannot use bad');
  await w.watch.check();
  expect(w.faults).toEqual(['cannot use bad', 'cannot use bad']);
});

it('uses what was in use before again when something else was not used everywhere', async () => {
  using w = watched();
  writeFileSync(w.file, 'stuck');
  for (let i = 0; i < 3; i++) await w.watch.check();
  expect([w.used, w.faults]).toEqual([['stuck', 'stuck'], ['not used everywhere']]);
  writeFileSync(w.file, 'one');
  for (let i = 0; i < 3; i++) await w.watch.check();
  expect([w.used, w.watch.fault]).toEqual([['stuck', 'stuck', 'one'], undefined]);
});
