import { checkEvaluate, evaluate } from '../faults/history.mjs';
import { faultsOf, table } from '../faults/report.mjs';
import { scenarios } from '../faults/scenarios.mjs';

/** `npm run faults` takes minutes; these tests check how it evaluates. */
describe('the runs under faults', () => {
  it('are evaluated: those that break the guarantee are told from those that do not', () => {
    expect(checkEvaluate).not.toThrow();
    const check = { token: 'a', gateway: 'g', startMs: 20, endMs: 21, verdict: 'accepted' as const };
    const { stale, wronged } = evaluate(
      [check, { ...check, token: 'b' }, { ...check, startMs: 9 }, { ...check, token: 'b', verdict: 'denied' }],
      [{ token: 'a', startMs: 5, endMs: 10 }],
    );
    expect(stale).toEqual([check]);
    expect(wronged).toEqual([{ ...check, token: 'b', verdict: 'denied' }]);
  });

  it('are summed up with every fault', () => {
    const outcome = {
      name: 'one',
      checks: 10,
      verdicts: { accepted: 4, denied: 6, unavailable: 0, unreachable: 0 },
      stale: 1,
      wronged: 2,
      broken: ['a promise'],
      examples: [],
      revocations: 1,
      medianMs: 5,
      maxMs: 9,
      by: { ack: 3, lease: 0 },
      refused: 1,
      wholeMs: 1,
    };
    expect(faultsOf(outcome)).toBe(4);
    const rows = table([outcome, { ...outcome, checks: 5 }, { ...outcome, name: 'other', by: { lease: 1 } }])
      .split('\n')
      .map((line) => line.replaceAll(/ +/g, ' '));
    expect(rows.slice(2)).toEqual([
      '| one | 15 | 2 | 4 | 5 | 9 | 2 | ack 6 |',
      '| other | 10 | 1 | 2 | 5 | 9 | 1 | lease 1 |',
      '| all 2 classes | 25 | 3 | 6 | 5 | 9 | 3 | ack 6, lease 1 |',
    ]);
  });

  it('are of twenty classes and more, each under a name of its own', () => {
    const names = new Set(scenarios.map(({ name }) => name));
    expect(names.size).toBe(scenarios.length);
    expect(names.size).toBeGreaterThanOrEqual(20);
  });
});
