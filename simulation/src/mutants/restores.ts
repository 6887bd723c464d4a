import type { LedgerFindings } from '@latchkey/token-service/ledger';
import type { Patch } from '../patched.js';
import type { RestoreFault } from '../restores/faults.js';
import { TokenService } from '../restores/process.js';

/** A rule of ledgers and restores left out, in a copy of the shipped files or where SQL has it. */
export interface RestoreMutant {
  readonly name: string;
  readonly patches?: readonly Patch[];
  readonly Service?: typeof TokenService;
  /** The faults of the worlds that search for it; by default each draws its own. */
  readonly faults?: readonly RestoreFault[];
  readonly isShared?: boolean;
  /** Where the search begins. */
  readonly seed?: number;
}

/** What lets somebody in is read in any history. */
class AnyHistory extends TokenService {
  protected override mustBeAccepted(): void {
    // Nothing is asked.
  }
}

class HoldKept extends TokenService {
  protected override isHeld(beforeMs: number | null): boolean {
    return beforeMs !== null;
  }
}

class NothingReapplied extends TokenService {
  protected override async reapply({ missing }: LedgerFindings): Promise<void> {
    for (const { e } of missing) this.place.db.tables.replays.add(e);
  }
}

class Trusting extends TokenService {
  protected override distrust(): void {
    // Ledgers from before vouch as they did.
  }
}

const moves: readonly RestoreFault[] = ['kill', 'stop', 'restart', 'putBack', 'dump', 'promote'];

export const restores: readonly RestoreMutant[] = [
  { name: 'histories that were not compared are read', Service: AnyHistory, faults: moves },
  { name: 'what is missing is not applied again', Service: NothingReapplied, faults: moves },
  { name: 'a hold in a backup counts for its restore', Service: HoldKept },
  {
    name: 'ledgers that are not kept any more are missed at each start',
    patches: [['ledger/follower.ts', 'this.#isMissed = !(await this.#deps.store.forget());', '']],
    faults: ['unconfigured', 'kill'],
  },
  {
    name: 'an answer does not wait for the ledger',
    patches: [['ledger/follower.ts', 'await Promise.race([this.#next, late.promise])', 'await Promise.resolve()']],
    faults: ['putBack', 'kill'],
    isShared: true,
    seed: 434,
  },
  {
    name: 'an answer waits for a round that had begun before',
    patches: [
      [
        'ledger/follower.ts',
        `(this.#round ?? Promise.resolve()).then(() => {
      this.#next = undefined;
      return this.refresh();
    })`,
        '(this.#round ?? this.refresh()).then(() => { this.#next = undefined; })',
      ],
    ],
    faults: ['putBack', 'kill'],
    isShared: true,
    seed: 787,
  },
  {
    name: 'a mark moves in a history that was not compared',
    patches: [
      ['ledger/follower.ts', 'this.#compared !== this.#history || ledger === undefined', 'ledger === undefined'],
    ],
    faults: moves,
    seed: 60,
  },
  {
    name: 'the cursor moves past open transactions',
    patches: [
      [
        'ledger/follower.ts',
        'this.#cursor = xmin;',
        'this.#cursor = String(events.reduce((last, { xid }) => BigInt(xid) >= last ? BigInt(xid) + 1n : last, BigInt(this.#cursor)));',
      ],
    ],
    faults: ['putBack', 'kill'],
    seed: 295,
  },
  {
    name: 'a mark of a history that is not settled counts as known',
    patches: [['ledger/vouching.ts', 'row.is_settled && row.ledger', 'row.ledger']],
    seed: 300,
  },
  {
    name: 'a copied ledger vouches',
    patches: [
      [
        'ledger/vouching.ts',
        "  if (!(ledger.isOriginal || ledger.isComplete)) return 'ledger_copied';\n  if (ledger.isOwn",
        '  if (ledger.isOwn',
      ],
    ],
    faults: ['older', 'putBack', 'kill'],
    seed: 74,
  },
  {
    name: 'a ledger that is not whole vouches',
    patches: [['ledger/vouching.ts', '  if (fault) return OF_FAULT[fault.code];\n', '']],
    faults: ['cut', 'streamGone', 'putBack'],
    seed: 124,
  },
  {
    name: 'the end of a stream is not compared with its state',
    patches: [['ledger/folder.ts', 'if (end && end.sequence < sequence)', 'if (false)']],
    faults: ['cut', 'putBack'],
    seed: 12,
  },
  {
    name: 'streams that are missing are not noticed',
    patches: [['ledger/folder.ts', 'if (!end && Date.parse(at) >= keptSince)', 'if (false)']],
    faults: ['streamGone', 'putBack', 'kill'],
    seed: 60,
  },
  {
    name: 'ledgers of servers that the database was moved to are not read',
    patches: [['ledger/beside.ts', '(isOther || isIgnored({ name: ledger, aliveTo }))', 'true']],
    faults: [...moves, 'otherServer'],
    seed: 19,
  },
  {
    name: 'ledgers of other databases are read',
    patches: [
      ['ledger/beside.ts', 'databases.length > 0 && !databases.includes(database)', 'false'],
      ['ledger/folder.ts', ' && state.database !== database', ' && false'],
    ],
    faults: moves,
    isShared: true,
  },
  {
    name: 'a ledger that is not whole is not replaced',
    patches: [['ledger/files.ts', '      if (faulty.has(own))\n', '      if (false)\n']],
    seed: 19,
  },
  {
    name: 'a copied ledger does not become the original',
    patches: [
      ['ledger/files.ts', 'if (!faulty.has(one)) attempt(() => one.adopt());', 'if (!faulty.has(one)) continue;'],
    ],
    seed: 18,
  },
  {
    name: 'a history is settled without a ledger that vouches',
    patches: [['system/examination.ts', 'findings.doubt === null || isUnguarded || isFirst', 'true']],
  },
  {
    name: 'a ledger that was used at the same time is read',
    patches: [
      ['ledger/beside.ts', 'const isUncertain = sharedMs > OVERLAP_MS || isDamaged;', 'const isUncertain = isDamaged;'],
    ],
    faults: ['copied', 'restart'],
    isShared: true,
    seed: 21,
  },
  {
    name: 'a ledger that was used at the same time leaves no doubt',
    patches: [['ledger/vouching.ts', 'if (!ledger.isUncertain && (', 'if ((']],
    faults: ['copied', 'kill', 'restart', 'together'],
    isShared: true,
    seed: 33,
  },
  {
    name: 'a ledger that cannot be read is passed over',
    patches: [
      ['ledger/beside.ts', "if (error.code !== 'unreadable' || !FOLDER_NAME.test(name)) return null;", 'return null;'],
    ],
    faults: ['unreadable', 'otherServer', 'putBack'],
    isShared: true,
    seed: 25,
  },
  {
    name: 'what was decided is asked at each start',
    patches: [['ledger/beside.ts', '(isOther || ignored.includes(ledger))', 'isOther']],
    faults: ['copied', 'kill', 'restart', 'together'],
    isShared: true,
  },
  {
    name: 'nothing is missing of months whose events may be deleted',
    patches: [['ledger/comparison.ts', 'Math.min(sinceMs, seenMs - LATE_MS)', 'sinceMs']],
    faults: ['months', 'putBack', 'kill'],
    isShared: true,
  },
  {
    name: 'a ledger that takes the place of another lacks what that has',
    patches: [['ledger/follower.ts', 'if (own.ledger !== this.#entered) {', 'if (false) {']],
    faults: ['exchange'],
    isShared: true,
    seed: 55,
  },
  {
    name: 'a ledger that takes the place of another is not compared',
    patches: [['ledger/own-ledger.ts', 'if (ledger !== this.#lastLedger) this.#isWhole = false;', '']],
    faults: ['exchange', 'putBack', 'restart', 'kill', 'unreadable'],
    isShared: true,
    seed: 105,
  },
  {
    name: 'a ledger cannot be set aside twice',
    patches: [['ledger/files.ts', '!existsSync(place) || !one.isThere()', 'true']],
    faults: ['exchange', 'older', 'cut', 'kill'],
    isShared: true,
    seed: 18,
  },
  {
    name: 'what the disk did not get is forgotten',
    patches: [['ledger/follower.ts', "this.#behind ??= { history, folder: this.#own?.folder ?? '' };", '']],
    faults: ['fullAtEnd', 'putBack'],
    isShared: true,
    seed: 9,
  },
  {
    name: 'what the disk did not get is known to no later process',
    Service: Trusting,
    patches: [
      ['ledger/follower.ts', 'if (this.#gapIn !== undefined) await this.#distrust(this.#own, this.#gapIn);', ''],
    ],
    faults: ['fullAtEnd', 'putBack', 'kill'],
    isShared: true,
    seed: 47,
  },
  {
    name: 'what the disk did not get is known to the database alone',
    patches: [
      ['ledger/follower.ts', 'if (this.#gapIn !== undefined) await this.#distrust(this.#own, this.#gapIn);', ''],
    ],
    faults: ['fullAtEnd', 'putBack', 'kill'],
    isShared: true,
    seed: 56,
  },
  {
    name: 'what the disk did not get is known to the ledger alone',
    Service: Trusting,
    faults: ['fullAtEnd', 'restart', 'lose', 'kill'],
    isShared: true,
    seed: 75,
  },
  {
    name: 'what the ledger of another server did not get is forgotten',
    patches: [['ledger/vouching.ts', '(ledger.isOwn || ledger.folder === here.gapIn)', 'ledger.isOwn']],
    faults: ['full', 'fullAtEnd', 'otherServer'],
    isShared: true,
  },
  {
    name: 'what one start left unsettled, the next settles without a ledger',
    patches: [['system/examination.ts', ' && !standing.isUndecided', '']],
    faults: ['fullAtEnd', 'full', 'unconfigured', 'putBack', 'restart', 'kill', 'slow'],
    isShared: true,
    seed: 59,
  },
];
