import type { ExitName } from './exit.js';
import type { Output } from './output.js';
import type { Environment } from './settings.js';

/** What a command gets: its environment and its output. */
export interface Context extends Environment {
  output: Output;
  /** Ends the command with this code once it has written everything. */
  exit: (name: ExitName) => void;
}
