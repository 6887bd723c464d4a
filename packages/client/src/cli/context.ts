import type { ExitName } from './exit.js';
import type { Output } from './output.js';
import type { Surroundings } from './settings.js';

/** What a command is handed: where it runs and where it writes. */
export interface Context extends Surroundings {
  output: Output;
  /** Ends the command with this code once it has written everything. */
  exit: (name: ExitName) => void;
}
