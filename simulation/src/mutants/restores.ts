import type { LedgerFindings } from '@latchkey/token-service/ledger';
import type { RestoreFault } from '../restores/faults.js';
import { TokenService } from '../restores/process.js';
import { following } from './following.js';
import type { RestoreMutant } from './mutant.js';
import { vouching } from './vouching.js';

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
  { name: 'histories that were not compared are read', Service: AnyHistory, faults: moves, seed: 12 },
  { name: 'what is missing is not applied again', Service: NothingReapplied, faults: moves },
  { name: 'a hold in a backup counts for its restore', Service: HoldKept, seed: 10 },
  {
    name: 'the end of a stream is not compared with its state',
    patches: [['ledger/folder.ts', 'if (end && end.sequence < sequence)', 'if (false)']],
    faults: ['cut', 'putBack'],
    seed: 14,
  },
  {
    name: 'streams that are missing are not noticed',
    patches: [['ledger/folder.ts', 'if (!end && Date.parse(at) >= keptSince)', 'if (false)']],
    faults: ['streamGone', 'putBack', 'kill'],
    seed: 118,
  },
  {
    name: 'a ledger that is not whole is not replaced',
    patches: [['ledger/files.ts', '      if (faulty.has(own))\n', '      if (false)\n']],
    seed: 25,
  },
  {
    name: 'a copied ledger does not become the original',
    patches: [
      ['ledger/files.ts', 'if (!faulty.has(one)) attempt(() => one.adopt());', 'if (!faulty.has(one)) continue;'],
    ],
    seed: 35,
  },
  {
    name: 'a history is settled without a ledger that vouches',
    patches: [['system/examination.ts', 'findings.doubt === null || isUnguarded || isFirst', 'true']],
    seed: 4,
  },
  {
    name: 'what the disk did not get is known to the ledger alone',
    Service: Trusting,
    faults: ['fullAtEnd', 'restart', 'lose', 'kill'],
    isShared: true,
    seed: 106,
  },
  ...following,
  ...vouching,
];
