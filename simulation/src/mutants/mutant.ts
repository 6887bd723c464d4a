import type { Pool } from '../connection.js';
import type { FaultName } from '../faults.js';
import type { Patch } from '../patched.js';
import type { RestoreFault } from '../restores/faults.js';
import type { TokenService } from '../restores/process.js';
import type { SimulatedStore } from '../store.js';

/** A rule of the protocol left out: in a copy of the shipped files, or in the simulated store or pool, where SQL has it. */
export interface Mutant {
  readonly name: string;
  readonly patches?: readonly Patch[];
  readonly Store?: typeof SimulatedStore;
  readonly Pool?: typeof Pool;
  /** The faults of the worlds that search for it; by default each draws its own. */
  readonly faults?: readonly FaultName[];
  /** Steps of those worlds. Default 120. */
  readonly steps?: number;
  /** Where the search begins. */
  readonly seed?: number;
}

/** A rule of ledgers and restores left out, in a copy of the shipped files or where SQL has it. */
export interface RestoreMutant {
  readonly name: string;
  readonly patches?: readonly Patch[];
  readonly Service?: typeof TokenService;
  /** The faults of the worlds that search for it; by default each draws its own. */
  readonly faults?: readonly RestoreFault[];
  /** Whether all processes have one ledger; by default that is drawn. */
  readonly isShared?: boolean;
  /** Where the search begins. */
  readonly seed?: number;
}
