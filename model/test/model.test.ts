import { beforeAll, describe, expect, test } from '@jest/globals';
import { disappointment, runCheck } from '../check.mjs';
import { checksOf } from '../checks.mjs';
import { findToolchain, type Toolchain } from '../toolchain.mjs';

/** A search takes seconds; compiling it on a busy machine may take longer. */
const timeoutMs = 300_000;
const quick = checksOf('quick');
let tools: Toolchain;

beforeAll(async () => {
  tools = await findToolchain((line) => process.stderr.write(`${line}\n`));
}, timeoutMs);

describe('in every order of events that the model allows', () => {
  test.each(quick.filter((check) => !check.mistake))(
    '$model, $property: $says $defines',
    async (check) => {
      const result = await runCheck(check, tools);
      expect(disappointment(check, result)).toBeNull();
      expect(result.states).toBeGreaterThan(50);
    },
    timeoutMs,
  );
});

describe('the search finds the planted mistake', () => {
  test.each(quick.filter((check) => check.mistake))(
    '$model: $says',
    async (check) => {
      expect(disappointment(check, await runCheck(check, tools))).toBeNull();
    },
    timeoutMs,
  );
});

test('a property that is violated fails the check, and so does a mistake that nobody finds', () => {
  const [property] = quick.filter((check) => !check.mistake);
  const [mistake] = quick.filter((check) => check.mistake);
  const found = { states: 1, depth: 1, seconds: 0, megabytes: 1, complete: true, unreached: [], history: '' };
  expect(disappointment(property!, { ...found, violation: 'assertion violated' })).toMatch(/violated/);
  expect(disappointment(property!, { ...found, violation: null, complete: false })).toMatch(/not searched completely/);
  expect(disappointment(mistake!, { ...found, violation: null })).toMatch(/not found/);
});
