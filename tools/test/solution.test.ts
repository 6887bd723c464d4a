import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { solution, solutionProblems } from '../solution.mjs';

let dir: string;

beforeEach(() => {
  dir = mkdtempSync(path.join(tmpdir(), 'latchkey-solution-'));
  put('package.json', { workspaces: ['packages/*'] });
  put('packages/one/package.json', { name: '@latchkey/one' });
  put('packages/one/tsconfig.json', {});
  put('packages/one/src/index.ts', 'export const one = 1;');
  put('packages/two/package.json', { name: '@latchkey/two', dependencies: { '@latchkey/one': '1.0.0' } });
  put('packages/two/tsconfig.json', { references: [{ path: '../one' }] });
  put('packages/two/src/index.ts', "export { one } from '@latchkey/one';");
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function put(file: string, content: string | object): void {
  mkdirSync(path.dirname(path.join(dir, file)), { recursive: true });
  writeFileSync(path.join(dir, file), typeof content === 'string' ? content : JSON.stringify(content));
}

test('a solution that lists every project, each referencing what it imports, has no problem', () => {
  put('tsconfig.json', solution(dir));
  expect(solutionProblems(dir)).toEqual([]);
});

test('a forgotten project is told', () => {
  put('tsconfig.json', solution(dir).replace('packages/two', 'packages/one'));
  expect(solutionProblems(dir)).toEqual([
    'tsconfig.json does not list every workspace and its tests; run npm run format',
  ]);
});

test('sources and tests that no project holds are told', () => {
  rmSync(path.join(dir, 'packages/one/tsconfig.json'));
  put('packages/two/test/two.test.ts', '');
  put('tsconfig.json', solution(dir));
  expect(solutionProblems(dir)).toEqual([
    'packages/one/tsconfig.json is missing, so nothing checks the types beside it',
    'packages/two/test/tsconfig.json is missing, so nothing checks the types beside it',
  ]);
});

test('an import without a reference is told, because a fresh clone would not build it first', () => {
  put('packages/one/package.json', { name: '@latchkey/one', devDependencies: { '@latchkey/two': '1.0.0' } });
  put('packages/one/test/tsconfig.json', {});
  put('packages/one/test/one.test.ts', "import { one } from '@latchkey/two';");
  put('tsconfig.json', solution(dir));
  expect(solutionProblems(dir)).toEqual([
    'packages/one/test/tsconfig.json does not reference .., which its files import; run npm run format',
    'packages/one/test/tsconfig.json does not reference ../../two, which its files import; run npm run format',
  ]);
});

test('an import that package.json does not declare is told, because it would not be built before', () => {
  put('packages/two/package.json', { name: '@latchkey/two' });
  put('tsconfig.json', solution(dir));
  expect(solutionProblems(dir)).toEqual([
    'packages/two/package.json does not depend on @latchkey/one, which its files import',
  ]);
});
