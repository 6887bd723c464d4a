import { expect, test } from '@jest/globals';
import { whyInstall } from '../lib/install.mjs';
import { hostsIn, lockFileProblems, missingStubs, platformOf } from '../lockfile.mjs';

test.each([
  ['@swc/core-linux-arm64-musl', { os: ['linux'], cpu: ['arm64'], libc: ['musl'] }],
  ['@unrs/resolver-binding-linux-arm-gnueabihf', { os: ['linux'], cpu: ['arm'], libc: ['glibc'] }],
  ['@turbo/windows-64', { os: ['win32'], cpu: ['x64'] }],
  ['@biomejs/cli-darwin-arm64', { os: ['darwin'], cpu: ['arm64'] }],
  ['@swc/core-win32-x64-msvc', { os: ['win32'], cpu: ['x64'] }],
  ['fsevents', { os: ['darwin'] }],
  ['bufferutil', null],
])('reads the platform from the name %s', (name, platform) => {
  expect(platformOf(name)).toEqual(platform);
});

const lock = (extra: object) => ({
  packages: {
    '': {},
    'node_modules/tool': { version: '1.2.3', dev: true, optionalDependencies: { 'tool-darwin-arm64': '1.2.3' } },
    ...extra,
  },
});

test('a missing binary of another platform gets a stub, which npm skips on this one', () => {
  expect(missingStubs(lock({}))).toEqual({
    stubs: {
      'node_modules/tool-darwin-arm64': { version: '1.2.3', os: ['darwin'], cpu: ['arm64'], dev: true, optional: true },
    },
    unknown: [],
  });
});

test('a binary in the lock file gets no second entry', () => {
  const present = lock({ 'node_modules/tool-darwin-arm64': { version: '1.2.3' } });
  expect(missingStubs(present)).toEqual({ stubs: {}, unknown: [] });
  const nested = lock({ 'node_modules/tool/node_modules/tool-darwin-arm64': { version: '1.2.3' } });
  expect(missingStubs(nested)).toEqual({ stubs: {}, unknown: [] });
});

test('a missing optional package without a platform in its name is reported, without a stub', () => {
  const wanting = lock({ 'node_modules/other': { version: '1.0.0', optionalDependencies: { bufferutil: '^4.0.1' } } });
  expect(missingStubs(wanting).unknown).toEqual(['bufferutil@^4.0.1 (required by node_modules/other)']);
});

test('a host in the lock file is found; URLs of sponsors and links between workspaces are ignored', () => {
  const text = `{
    "resolved": "apps/gateway",
    "funding": { "url": "https://example.org/sponsor" },
    "resolved": "https://registry.example.org/tool-1.2.3.tgz",
    "resolved": "git+ssh://git@example.org/tool.git"
  }`;
  expect(hostsIn(text)).toHaveLength(2);
  expect(hostsIn(text)[0]).toContain('line 4: ');
});

test('a lock file without the other platforms is a problem whose message names the command to run', () => {
  expect(lockFileProblems(JSON.stringify(lock({})))).toEqual([
    'package-lock.json lacks 1 entries for other platforms; run node tools/lockfile.mjs',
  ]);
});

test('packages are installed only when some are missing or of another version', () => {
  const wanted = { packages: { 'node_modules/a': { version: '2.0.0' }, 'node_modules/b': { optional: true } } };
  const installed = (packages: Record<string, object>) => ({ packages });
  expect(whyInstall(wanted, null)).toBe('nothing is installed yet');
  expect(whyInstall(wanted, installed({}))).toBe('a is not installed');
  expect(whyInstall(wanted, installed({ 'node_modules/a': { version: '1.0.0' } }))).toBe(
    'a is 1.0.0 and should be 2.0.0',
  );
  expect(whyInstall(wanted, installed({ 'node_modules/a': { version: '2.0.0' } }))).toBeNull();
});
