import type { Mutant } from './mutant.js';
import { LogReadElsewhere, ProofElsewhere } from './mutated.js';

/** Rules about a primary that was deposed. */
export const failover: readonly Mutant[] = [
  {
    name: 'no authority window',
    seed: 1_329,
    faults: ['promote', 'gatewayLine'],
    patches: [['database/authority.ts', 'this.#time.elapsedMs(proof.begun) < proof.windowMs', 'proof.windowMs > 0']],
  },
  {
    name: 'a warning at a commit ignored',
    faults: ['promote'],
    patches: [
      [
        'database/authority.ts',
        'if (connection.warnings === warnings) return;',
        'if (connection.warnings >= warnings) return;',
      ],
    ],
  },
  {
    name: 'proof and reading on different connections',
    seed: 604,
    faults: ['promote', 'gatewayRedis'],
    steps: 200,
    Pool: ProofElsewhere,
  },
  {
    name: 'the lease on one connection, the log on another',
    seed: 885,
    faults: ['promote', 'gatewayLine'],
    Store: LogReadElsewhere,
  },
  {
    name: 'leases read without a proof',
    faults: ['promote'],
    patches: [['invalidation/log.ts', '    await here.prove();\n', '']],
  },
  {
    name: 'a fill of another log kept',
    seed: 3_062,
    faults: ['promote', 'wall', 'drift', 'repeat'],
    patches: [['verifier/fills.ts', 'if (isOfAnotherLog(response, applied)) {', 'if (isOfAnotherLog === undefined) {']],
  },
];
