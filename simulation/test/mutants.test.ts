import { expect, test } from '@jest/globals';
import { modulesWith, mutants } from '../src/mutants/index.js';
import { simulate } from '../src/world.js';

const SEEDS_MAX = 2_000;
const STEPS = 120;
const timeoutMs = 600_000;

/** Mutations of a copy of the shipped files, or of the store where the rule is SQL's; the shipped code has no switches. */
test.each(mutants)(
  'a mutant breaks an invariant: $name',
  async (mutant) => {
    const modules = await modulesWith(mutant);
    let violation: string | undefined;
    const { seed: first = 1, steps = STEPS, faults } = mutant;
    for (let seed = first; violation === undefined && seed < first + SEEDS_MAX; seed++) {
      ({ violation } = await simulate({ seed, steps, faults, modules }));
    }
    expect(violation).toBeDefined();
  },
  timeoutMs,
);
