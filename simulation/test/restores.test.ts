import { describe, expect, test } from '@jest/globals';
import { restores } from '../src/mutants/restores.js';
import { patchedModules } from '../src/patched.js';
import { BENIGN } from '../src/restores/faults.js';
import { type RestoreWorldOptions, simulateRestores } from '../src/restores/world.js';
import { shipped } from '../src/shipped.js';

/** Of each kind; `npm run simulate -- --restores` runs more. */
const WORLDS = 20;
const SEEDS_MAX = 300;
const timeoutMs = 600_000;

async function hold(options: Omit<RestoreWorldOptions, 'seed'>): Promise<void> {
  const sums = { allowed: 0, revoked: 0, restores: 0 };
  for (let seed = 1; seed <= WORLDS; seed++) {
    const { violation, counts } = await simulateRestores({ seed, ...options });
    if (violation !== undefined) {
      const { history } = await simulateRestores({ seed, ...options, history: true });
      const again = `npm run simulate -- --restores${options.faults ? ' --benign' : ''} --seed ${seed}`;
      throw new Error(`${again}\n${history.join('\n')}`);
    }
    for (const name of ['allowed', 'revoked', 'restores'] as const) sums[name] += counts[name];
  }
  // The worlds did something.
  for (const sum of Object.values(sums)) expect(sum).toBeGreaterThan(WORLDS);
}

describe('however a database is put back, no token is accepted whose revocation was answered and in the ledger', () => {
  test(
    'whatever happens to disks and ledgers; and once an administrator has decided, every good token is accepted',
    () => hold({}),
    timeoutMs,
  );

  test(
    'and while its ledger is whole, nobody has to decide',
    () => hold({ faults: BENIGN, isShared: true }),
    timeoutMs,
  );
});

test.each(restores)(
  'a mutant breaks an invariant: $name',
  async ({ name, patches, seed: first = 1, ...world }) => {
    const modules = patches ? { ...shipped, ...(await patchedModules(name, patches)) } : shipped;
    let violation: string | undefined;
    for (let seed = first; violation === undefined && seed < first + SEEDS_MAX; seed++) {
      ({ violation } = await simulateRestores({ seed, modules, ...world }));
      // In a world that breaks without it too, nothing is shown.
      if (violation && patches && (await simulateRestores({ seed, modules: shipped, ...world })).violation)
        violation = undefined;
    }
    expect(violation).toBeDefined();
  },
  timeoutMs,
);

test('the same seed gives the same history, another seed another', async () => {
  const [once, again, other] = await Promise.all([7, 7, 8].map((seed) => simulateRestores({ seed, history: true })));
  expect(again).toEqual(once);
  expect(other!.history).not.toEqual(once!.history);
});
