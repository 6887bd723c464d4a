import { beforeAll, describe, expect, test } from '@jest/globals';
import { problemOf, runCheck } from '../check.mjs';
import { checksOf } from '../checks.mjs';
import { findToolchain, type Toolchain } from '../toolchain.mjs';

/** A search takes seconds; compiling it on a busy machine can take longer. */
const timeoutMs = 300_000;
const quick = checksOf('quick');
let tools: Toolchain;

beforeAll(async () => {
  tools = await findToolchain((line) => process.stderr.write(`${line}\n`));
}, timeoutMs);

describe('in every order of events that the model allows', () => {
  test.each(quick.filter((check) => !check.mutant))(
    '$model, $property: $title $defines',
    async (check) => {
      const result = await runCheck(check, tools);
      expect(problemOf(check, result)).toBeNull();
      expect(result.states).toBeGreaterThan(50);
    },
    timeoutMs,
  );
});

describe('the search finds the mutant', () => {
  test.each(quick.filter((check) => check.mutant))(
    '$model: $title',
    async (check) => {
      expect(problemOf(check, await runCheck(check, tools))).toBeNull();
    },
    timeoutMs,
  );
});

test('a property that is violated fails the check, and so does a mutant that is not found', () => {
  const [property] = quick.filter((check) => !check.mutant);
  const [mutant] = quick.filter((check) => check.mutant);
  const found = { states: 1, depth: 1, seconds: 0, megabytes: 1, complete: true, unreached: [], history: '' };
  expect(problemOf(property!, { ...found, violation: 'assertion violated' })).toMatch(/violated/);
  expect(problemOf(property!, { ...found, violation: null, complete: false })).toMatch(/not searched completely/);
  expect(problemOf(mutant!, { ...found, violation: null })).toMatch(/not found/);
});
