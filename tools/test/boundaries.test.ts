import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, describe, expect, test } from '@jest/globals';
import { boundaryProblems, importsOf, workspaceProblems } from '../boundaries.mjs';

const folders: string[] = [];

afterEach(() => {
  for (const dir of folders.splice(0)) rmSync(dir, { recursive: true, force: true });
});

/** The problems of a repository with this repository's workspaces and the given source files. */
function check(files: Record<string, string>, by = boundaryProblems): string[] {
  const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-boundaries-'));
  folders.push(dir);
  const put = (file: string, text: string) => {
    mkdirSync(path.dirname(path.join(dir, file)), { recursive: true });
    writeFileSync(path.join(dir, file), text);
  };
  put('package.json', JSON.stringify({ workspaces: ['apps/*', 'packages/*', 'e2e', 'tools'] }));
  const apps = ['token-service', 'gateway', 'console'].map((name) => `apps/${name}`);
  const packages = ['token-format', 'contracts', 'verifier', 'runtime', 'client', 'local-stack', 'testing'];
  for (const workspace of [...apps, ...packages.map((name) => `packages/${name}`), 'e2e', 'tools']) {
    put(`${workspace}/package.json`, JSON.stringify({ name: `@latchkey/${path.basename(workspace)}` }));
  }
  for (const [file, text] of Object.entries(files)) put(file, text);
  return by(dir);
}

describe('rule 1', () => {
  test.each([
    ['apps/gateway/src/main.ts', '@latchkey/token-service', 'apps import packages, never another app'],
    ['apps/gateway/src/main.ts', '../../token-service/src/main.js', 'never by a path into it'],
    ['apps/gateway/src/main.ts', '../../../packages/verifier/src/index.js', 'never by a path into it'],
    ['apps/gateway/src/main.ts', '@latchkey/testing', 'imports only'],
    ['apps/gateway/src/main.ts', '@latchkey/local-stack', 'only packages/testing, bench and tools import local-stack'],
    ['apps/console/src/main.tsx', '@latchkey/verifier', 'imports only token-format, contracts, client'],
    ['packages/token-format/src/index.ts', '@latchkey/contracts', 'imports no other workspace'],
    ['packages/token-format/src/index.ts', 'zod', 'imports nothing'],
    ['packages/contracts/src/index.ts', 'pg', 'imports only zod'],
    ['packages/verifier/src/index.ts', 'ioredis', 'imports only token-format, contracts'],
    ['packages/verifier/src/index.ts', '@latchkey/runtime', 'imports only token-format, contracts'],
    ['packages/runtime/src/index.ts', '@latchkey/verifier', 'imports only token-format, contracts'],
    ['packages/client/src/index.ts', '@latchkey/gateway', 'imports packages, never an app'],
    ['e2e/src/run.ts', '@latchkey/gateway', 'imports packages, never an app'],
  ])('forbids %s importing %s', (file, specifier, why) => {
    const problems = check({ [file]: `import { x } from '${specifier}';\n` });
    expect(problems).toHaveLength(1);
    expect(problems[0]).toContain(`${file}: imports ${specifier}, but rule 1 says `);
    expect(problems[0]).toContain(why);
  });

  test('allows valid imports', () => {
    const problems = check({
      'apps/gateway/src/main.ts': "import '@latchkey/verifier'; import { hash } from 'node:crypto'; import 'undici';",
      'packages/token-format/src/index.ts': "import { hash } from 'node:crypto';",
      'packages/contracts/src/index.ts': "import { z } from 'zod';",
      'packages/testing/src/index.ts': "export * from '@latchkey/local-stack';",
      'tools/src/launcher.ts': "import { startPostgres } from '@latchkey/local-stack';",
      'e2e/src/run.ts': "import { waitFor } from '@latchkey/testing';",
    });
    expect(problems).toEqual([]);
  });
});

describe('rule 2', () => {
  const file = 'apps/token-service/src/tokens/tokens.service.ts';

  test('forbids importing a folder above', () => {
    const low = 'apps/token-service/src/database/database.service.ts';
    expect(check({ [low]: "import { ApiError } from '../http/http.errors.js';" })).toEqual([
      `${low}: imports ../http/http.errors.js, but rule 2 says src/database/ imports only folders below it, and src/http/ ` +
        'is above',
    ]);
  });

  test('forbids a folder that is not listed', () => {
    expect(check({ [file]: "import '../things/things.service.js';" })[0]).toMatch(
      /rule 2 says src\/things\/ must be listed in the layers of apps\/token-service/,
    );
  });

  test("forbids another folder's files except its index, even for a type", () => {
    const problems = check({ [file]: "import type { Person } from '../projects/person.entity.js';" });
    expect(problems).toEqual([
      `${file}: imports ../projects/person.entity.js, but rule 2 says src/projects/ is entered by its index.ts`,
    ]);
  });

  test('allows the index of a folder below, files of the same folder, and files beside the folders', () => {
    const problems = check({
      [file]: "import '../audit/index.js'; import './token.entity.js'; import '../config.js';",
      'apps/token-service/src/main.ts': "import { Person } from './projects/person.entity.js';",
    });
    expect(problems).toEqual([]);
  });
});

describe('rule 3', () => {
  test('forbids import cycles, even for types', () => {
    const problems = check({
      'e2e/src/a.ts': "import { b } from './b.js';",
      'e2e/src/b.ts': "import type { C } from './c/index.js';",
      'e2e/src/c/index.ts': "export { a } from '../a.js';",
      'e2e/src/run.ts': "import './a.js'; import './b.js';",
    });
    expect(problems).toEqual([
      'e2e/src/a: imports itself through e2e/src/b, e2e/src/c/index, but rule 3 forbids cycles',
    ]);
  });
});

describe('a workspace', () => {
  const manifest = (more: object) => JSON.stringify({ name: '@latchkey/verifier', ...more });
  const whole = {
    'packages/verifier/package.json': manifest({
      scripts: { build: 'tsc', typecheck: 'tsc -p test' },
      dependencies: { '@latchkey/contracts': '1.0.0' },
      devDependencies: { '@latchkey/testing': '1.0.0' },
    }),
    'packages/verifier/tsconfig.json': '{}',
    'packages/verifier/src/index.ts': "export { one } from '@latchkey/contracts/one'; import 'undici';",
    'packages/verifier/test/tsconfig.json': '{}',
    'packages/verifier/test/one.test.ts': "import { two } from '@latchkey/testing';",
  };
  const without = (file: keyof typeof whole) => Object.fromEntries(Object.entries(whole).filter(([f]) => f !== file));

  test('passes when it declares its imports and has the scripts', () => {
    expect(check(whole, workspaceProblems)).toEqual([]);
  });

  test.each([
    ['an import that is not declared', { ...whole, 'packages/verifier/src/more.ts': "import '@latchkey/client';" }],
    [
      'an import of a test that is not declared',
      { ...whole, 'packages/verifier/test/more.test.ts': "import '@latchkey/client';" },
    ],
  ])('fails for %s', (_, files) => {
    const why = 'packages/verifier/package.json does not depend on @latchkey/client, which its files import';
    expect(check(files, workspaceProblems)).toEqual([why]);
  });

  const dependencies = { '@latchkey/contracts': '1', '@latchkey/testing': '1' };
  const scripts = (names: object) => ({
    ...whole,
    'packages/verifier/package.json': manifest({ dependencies, ...names }),
  });
  test.each([
    ['sources without a project', 'src', without('packages/verifier/tsconfig.json')],
    ['tests without a project', 'test', without('packages/verifier/test/tsconfig.json')],
    ['sources without a script', 'src', scripts({ scripts: { typecheck: 'tsc -p test' } })],
    ['tests without a script', 'test', scripts({ scripts: { build: 'tsc' } })],
  ])('fails for %s', (_, folder, files) => {
    const problems = check(files, workspaceProblems);
    expect(problems).toEqual([expect.stringContaining(`packages/verifier: nothing checks the types of ${folder}/`)]);
  });
});

test('every form of import is found, and none in comments', () => {
  const source = `
    import a, { type b } from 'one';
    import {
      c,
    } from "two";
    import 'three';
    export * from 'four';
    const d = await import('five');
    const e = require('six');
    // import 'seven';
    /* import 'eight'; */
    const text = 'import me';
  `;
  expect(importsOf(source).sort()).toEqual(['five', 'four', 'one', 'six', 'three', 'two']);
});
