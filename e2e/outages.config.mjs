import preset from '../tools/jest.preset.mjs';

/** Frozen, killed and emptied processes: minutes, not seconds, so not part of `npm test`. Each file has its own stack. */
export default preset(import.meta.dirname, {
  testMatch: ['<rootDir>/outages/**/*.test.ts'],
  testTimeout: 240_000,
  maxWorkers: 1,
});
