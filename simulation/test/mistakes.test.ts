import { expect, test } from '@jest/globals';
import { mistakes, roomsWith } from '../src/mistakes.js';
import { simulate } from '../src/world.js';

const SEEDS_MAX = 2_000;
const STEPS = 120;
const timeoutMs = 600_000;

/** Planted in a copy of the shipped files, or in the store where the rule is SQL's; the shipped code has no switches. */
test.each(mistakes)(
  'a mistake is caught: $name',
  async (mistake) => {
    const rooms = await roomsWith(mistake);
    let violation: string | undefined;
    const { seed: first = 1, steps = STEPS, faults } = mistake;
    for (let seed = first; violation === undefined && seed < first + SEEDS_MAX; seed++) {
      ({ violation } = await simulate({ seed, steps, faults, rooms }));
    }
    expect(violation).toBeDefined();
  },
  timeoutMs,
);
