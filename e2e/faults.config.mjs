import preset from '../tools/jest.preset.mjs';

/** Faults on real processes: minutes, not seconds, so not part of `npm test`. Each file has a stack of its own. */
export default preset(import.meta.dirname, {
  testMatch: ['<rootDir>/faults/**/*.test.ts'],
  testTimeout: 240_000,
  maxWorkers: 1,
});
