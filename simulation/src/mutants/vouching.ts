import type { RestoreFault } from '../restores/faults.js';
import type { RestoreMutant } from './mutant.js';

const moves: readonly RestoreFault[] = ['kill', 'stop', 'restart', 'putBack', 'dump', 'promote'];

/** Rules of what ledgers show about a history of the database. */
export const vouching: readonly RestoreMutant[] = [
  {
    name: 'a mark of a history that is not settled counts as known',
    patches: [['ledger/vouching.ts', 'row.is_settled && row.ledger', 'row.ledger']],
    seed: 329,
  },
  {
    name: 'a copied ledger vouches',
    patches: [
      [
        'ledger/vouching.ts',
        "  if (!(ledger.isOriginal || ledger.isComplete)) return 'ledger_copied';\n  const isLater",
        '  const isLater',
      ],
    ],
    faults: ['older', 'putBack', 'kill'],
    seed: 90,
  },
  {
    name: 'a ledger that is not whole vouches',
    patches: [['ledger/vouching.ts', '  if (fault) return OF_FAULT[fault.code];\n', '']],
    faults: ['cut', 'streamGone', 'putBack'],
    seed: 126,
  },
  {
    name: 'ledgers of servers that the database was moved to are not read',
    patches: [['ledger/beside.ts', '(isOther || isDecided)', 'true']],
    faults: [...moves, 'otherServer'],
    seed: 23,
  },
  {
    name: 'a ledger that was used at the same time leaves no doubt',
    patches: [['ledger/vouching.ts', "      return 'ledger_uncertain';\n", '      continue;\n']],
    faults: ['copied'],
    isShared: true,
    seed: 24,
  },
  {
    name: 'a ledger that cannot be read is passed over',
    patches: [
      ['ledger/beside.ts', "if (error.code !== 'unreadable' || !FOLDER_NAME.test(name)) return null;", 'return null;'],
    ],
    faults: ['unreadable', 'otherServer'],
    isShared: true,
    seed: 37,
  },
  {
    name: 'what was decided is asked at each start',
    patches: [['ledger/beside.ts', '(isOther || isDecided)', 'isOther']],
    faults: ['copied', 'kill', 'restart', 'together'],
    isShared: true,
    seed: 22,
  },
  {
    name: 'nothing is missing of months whose events may be deleted',
    patches: [['ledger/comparison.ts', 'Math.min(sinceMs, seenMs - LATE_MS)', 'sinceMs']],
    faults: ['months', 'putBack', 'kill'],
    isShared: true,
    seed: 11,
  },
  {
    name: 'a ledger that was set aside is asked about at each start',
    patches: [
      [
        'ledger/beside.ts',
        'const isEnded = folder !== own && isKnown && isDecided && faults.length > 0;',
        'const isEnded = false;',
      ],
    ],
    faults: ['unreadable'],
    isShared: true,
  },
  {
    name: 'a server to which the database was moved passes for a copy',
    patches: [['ledger/beside.ts', 'const OVERLAP_MS = 60_000;', 'const OVERLAP_MS = 0;']],
    faults: ['kill', 'stop', 'together', 'restart', 'putBack', 'dump', 'otherServer', 'promote', 'moved', 'exchange'],
    isShared: true,
    seed: 12,
  },
  {
    name: 'a process that may have missed something vouches',
    patches: [
      [
        'ledger/vouching.ts',
        `  if (here.hasGap) return 'ledger_incomplete';
`,
        '',
      ],
    ],
    faults: ['fullAtEnd'],
    isShared: true,
  },
  {
    name: 'a ledger that was replaced is asked about again',
    patches: [['ledger/comparison.ts', 'const damaged = ledgers.find', 'const damaged = ledgers.slice(0, 0).find']],
    seed: 213,
  },
];
