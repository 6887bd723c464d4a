import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { ConfigError } from '@latchkey/runtime';
import { readScopesFile } from '../src/authorization/scopes.service.js';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'scopes-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Line and message of each problem of a scopes file with this text. */
function problemsOf(text: string): string[] {
  const file = path.join(folder, 'scopes.yaml');
  writeFileSync(file, text);
  try {
    readScopesFile(file);
    return [];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.problems.map((problem) => problem.replace(`${file}:`, ''));
  }
}

const one = (...lines: string[]) =>
  ['scopes:', '  - name: a:b', '    description: x', ...lines.map((line) => `    ${line}`)].join('\n');

test.each<[what: string, text: string, problems: (string | RegExp)[]]>([
  ['a valid scope', one('members: true', 'projectRoles: [owner]'), []],
  ['text that is not YAML', 'scopes: [', [/^1: .*end with a \]$/]],
  ['no scopes', 'scope: []', [/^1: scopes: /, /^1: file: Unrecognized key/]],
  ['an invalid name', one().replace('a:b', 'A'), [/^2: scopes\.0\.name: /]],
  ['an invalid role', one('projectRoles:', '  - owner', '  - boss'), [/^6: scopes\.0\.projectRoles\.1: /]],
  ['an unknown setting', one('colour: red'), [/^2: scopes\.0: Unrecognized key: "colour"/]],
  [
    'a description missing',
    'scopes:\n  - {}\n  - name: a:b\n',
    [/^2: .*name/, /^2: .*description/, /^3: .*description/],
  ],
  ['a scope declared twice', `${one()}\n  - name: a:b\n    description: y\n`, ['4: the scope a:b is declared twice']],
  ['a built-in scope', one().replace('a:b', 'tokens:read'), ['2: the scope tokens:read is declared twice']],
  ['an undefined anchor', 'scopes: *x', [/^1: /]],
])('every problem of a scopes file with %s is reported with its line', (_what, text, problems) => {
  expect(problemsOf(text)).toEqual(
    problems.map((problem) => (typeof problem === 'string' ? problem : expect.stringMatching(problem))),
  );
});

test('the error of an unreadable scopes file names it', () => {
  expect(() => readScopesFile(path.join(folder, 'none.yaml'))).toThrow(
    /SCOPES_FILE: cannot read .*none\.yaml \(ENOENT\)/,
  );
});
