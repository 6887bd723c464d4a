import preset from '../tools/jest.preset.mjs';

/** The proxy examples with the real programs, which not every machine has; so not part of `npm test`. */
export default preset(import.meta.dirname, {
  testMatch: ['<rootDir>/proxies/**/*.test.ts'],
  globalSetup: '<rootDir>/setup.mjs',
  globalTeardown: '<rootDir>/teardown.mjs',
  maxWorkers: 1,
});
