import preset from '../tools/jest.preset.mjs';

/** One stack for the whole run; files take turns, and the search for leaked secrets comes last, when most has happened. */
export default preset(import.meta.dirname, {
  globalSetup: '<rootDir>/setup.mjs',
  globalTeardown: '<rootDir>/teardown.mjs',
  testSequencer: '<rootDir>/sequencer.mjs',
  maxWorkers: 1,
});
