import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { type DebianPrograms, debianPrograms, firstLine } from '../src/index.js';
import { temporaryFolder } from './helpers.js';

let folder: ReturnType<typeof temporaryFolder>;
let environment: NodeJS.ProcessEnv;
const calls = () => readFileSync(path.join(folder.dir, 'calls'), 'utf8').trim().split('\n');
const cached = () => readdirSync(path.join(folder.dir, 'cache'));

/** Stands for a program on PATH; a package is a file whose content is the program that it holds. */
function program(name: string, script: string): void {
  writeFileSync(path.join(folder.dir, 'bin', name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
}

const apt = (cases: string) => program('apt-get', `echo "$*" >> '${folder.dir}/calls'\ncase "$*" in\n${cases}\nesac`);
const download = `*' download '*) shift; for name; do [ "$name" = download ] || echo "echo $name" > "$name.deb"; done;;`;

beforeEach(() => {
  folder = temporaryFolder();
  environment = { ...process.env };
  mkdirSync(path.join(folder.dir, 'bin'));
  process.env['PATH'] = `${path.join(folder.dir, 'bin')}:${process.env['PATH']}`;
  process.env['LATCHKEY_CACHE'] = path.join(folder.dir, 'cache');
  // dpkg -x FILE FOLDER
  program(
    'dpkg',
    'mkdir -p "$3/usr/bin" "$3/usr/lib/x86_64-linux-gnu"\nname=$(basename "$2" .deb)\ncp "$2" "$3/usr/bin/$name"\nchmod +x "$3/usr/bin/$name"',
  );
});

afterEach(() => {
  process.env = environment;
  folder.remove();
});

const wanted = (more: Partial<DebianPrograms> = {}): DebianPrograms => ({
  name: 'tool',
  packages: ['tool'],
  programs: { tool: 'usr/bin/tool' },
  check: ['--version'],
  message: 'fetching the tool',
  ...more,
});

test('fetches once, and starts the program with the libraries beside it', async () => {
  apt(download);
  const said: string[] = [];
  const first = await debianPrograms(wanted({ log: (line) => said.push(line) }));
  expect(await debianPrograms(wanted({ log: (line) => said.push(line) }))).toEqual(first);
  expect(said).toEqual(['fetching the tool']);
  expect(calls()).toEqual(['-q download tool']);
  const script = readFileSync(first.programs['tool']!, 'utf8');
  expect(script).toContain(`LD_LIBRARY_PATH='${first.root}/usr/lib/x86_64-linux-gnu'`);
  expect(script).toContain(`exec '${first.root}/usr/bin/tool' "$@"`);
});

test('also fetches the dependencies that apt would install', async () => {
  apt(`*' install '*) printf 'NOTE: simulated\\nInst libtool2 (2.1 Debian:12 [amd64])\\nInst tool (1.0) []\\nConf tool (1.0)\\n';;
${download}`);
  await debianPrograms(wanted({ dependencies: true }));
  expect(calls()).toEqual(['-q -s --no-install-recommends install tool', '-q download tool libtool2']);
});

test('reads package lists of its own when this machine has none', async () => {
  apt(`'-q download '*) echo 'E: Unable to locate package tool' >&2; exit 100;;
*' update') ;;
*) echo 'echo tool' > tool.deb;;`);
  await debianPrograms(wanted());
  expect(calls().map((line) => line.replaceAll(/-o \S+ /g, ''))).toEqual([
    '-q download tool',
    '-q update',
    '-q download tool',
  ]);
});

test('reports what apt said, and leaves nothing behind', async () => {
  apt(`*) printf 'Reading lists\\nE: Unable to locate package tool\\n' >&2; exit 100;;`);
  const error: unknown = await debianPrograms(wanted()).catch((failure: unknown) => failure);
  expect(firstLine(error)).toBe('E: Unable to locate package tool');
  expect(cached()).toEqual([]);
});

test('fetches more when the program does not start without', async () => {
  apt(`*' download tool') echo '[ -e "$(dirname "$0")/library" ]' > tool.deb;;
*' download library') echo 'echo' > library.deb;;
*) exit 100;;`);
  const { root } = await debianPrograms(wanted({ more: ['library', 'unknown'] }));
  expect(existsSync(path.join(root, 'usr/bin/library'))).toBe(true);
});

test('rejects a program that does not start', async () => {
  apt(`*' download '*) echo 'echo "no such library" >&2; exit 1' > tool.deb;;`);
  await expect(debianPrograms(wanted())).rejects.toThrow('no such library');
  expect(cached()).toEqual([]);
});

test('accepts a program that exits with the code it has when called so', async () => {
  apt(`*' download '*) echo 'exit 1' > tool.deb;;`);
  await debianPrograms(wanted({ checkCode: 1 }));
  expect(cached()).toEqual([`tool-${process.arch}`]);
});
