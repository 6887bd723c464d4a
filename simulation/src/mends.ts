import type { Patch } from './patched.js';

/**
 * What the shipped files still lack, found here: planted in the copies that the worlds run, so that the worlds go on past
 * it. Once a shipped file has its mend, its patch no longer fits, every run says so, and the entry here goes.
 */
export const mends: readonly Patch[] = [
  [
    // A look-up that was answered from another log than the memory's: from a primary that has been deposed, perhaps.
    'verifier/fills.ts',
    'if (applied.poisons(position, response)) {',
    `const { log } = response as { log?: string };
      if (applied.poisons(position, response) || (log && applied.cursor && applied.cursor.log !== log)) {`,
  ],
];
