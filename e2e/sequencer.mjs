import { createRequire } from 'node:module';

const { default: Sequencer } = createRequire(import.meta.url)('@jest/test-sequencer');

/** Files by name, so that runs are alike, with `leaks` last. */
export default class LeaksLast extends Sequencer {
  sort(tests) {
    const rank = ({ path }) => (path.endsWith('leaks.test.ts') ? 1 : 0);
    return [...tests].sort((a, b) => rank(a) - rank(b) || (a.path < b.path ? -1 : 1));
  }
}
