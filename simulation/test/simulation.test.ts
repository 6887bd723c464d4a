import { describe, expect, test } from '@jest/globals';
import type { FaultName } from '../src/faults.js';
import { simulate } from '../src/world.js';

/** Few enough that a failing test's seed is easy to find. */
const SEEDS_PER_TEST = 250;
const SEEDS = 500;
const STEPS = 80;
const timeoutMs = 600_000;

const starts = Array.from({ length: SEEDS / SEEDS_PER_TEST }, (_, i) => 1 + i * SEEDS_PER_TEST);

describe('under any faults, nothing is accepted that a finished revocation forbids, nothing refused that is valid, everything confirms', () => {
  test.each(starts)(
    `in the ${SEEDS_PER_TEST} worlds from seed %i on`,
    async (first) => {
      const by = new Set<string>();
      let allowed = 0;
      for (let seed = first; seed < first + SEEDS_PER_TEST; seed++) {
        const { violation, ...outcome } = await simulate({ seed, steps: STEPS });
        if (violation !== undefined) {
          const { history } = await simulate({ seed, steps: STEPS, history: true });
          throw new Error(`npm run simulate -- --seed ${seed} --steps ${STEPS}\n${history.join('\n')}`);
        }
        for (const how of Object.keys(outcome.by)) by.add(how);
        allowed += outcome.allowed;
      }
      // The worlds did something: tokens were allowed, and verifiers confirmed in every way.
      expect(allowed).toBeGreaterThan(SEEDS_PER_TEST);
      expect([...by].sort()).toEqual(['ack', 'cursor', 'lease', 'released']);
    },
    timeoutMs,
  );
});

test('a database that is merely restarted empties no verifier`s memory', async () => {
  for (let seed = 1; seed <= 60; seed++) {
    const { violation, resets, gateways } = await simulate({
      seed,
      steps: STEPS,
      faults: ['restart'],
      retentionMs: 60_000,
    });
    expect({ seed, violation, resets }).toEqual({ seed, violation: undefined, resets: gateways });
  }
});

const histories: readonly (readonly FaultName[])[] = [
  ['promote'],
  ['promote', 'standBy', 'replicaDatabase', 'killReplica'],
  ['restoreInPlace', 'backUp', 'island', 'gatewayRedis'],
  ['restoreInPlace', 'restart', 'replicaDatabase', 'killReplica'],
];

test.each(histories)(
  'no invariant breaks when the database has the same faults again and again: %s, %s, %s, %s',
  async (...faults) => {
    for (let seed = 1; seed <= 40; seed++) {
      const { violation } = await simulate({ seed, steps: STEPS, faults });
      expect({ seed, violation }).toEqual({ seed, violation: undefined });
    }
  },
  timeoutMs,
);

test('the same seed gives the same history, another seed another', async () => {
  const [once, again, other] = await Promise.all([7, 7, 8].map((seed) => simulate({ seed, history: true })));
  expect(again).toEqual(once);
  expect(other!.history).not.toEqual(once!.history);
});
