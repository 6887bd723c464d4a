/**
 * What is checked: every property that must hold, searched completely, and every mutant that must be found.
 *
 * @typedef {object} Check
 * @property {string} model the .pml file without its ending
 * @property {'safety' | 'liveness'} property
 * @property {string[]} defines switches of the model, without -D
 * @property {string} [mutant] the rule left out; without one the property must hold
 * @property {'quick' | 'full' | 'deep'} set the smallest set that it belongs to
 * @property {string} title for the table
 */

/** @type {Check[]} */
const properties = [
  {
    model: 'lease',
    property: 'safety',
    defines: [],
    set: 'quick',
    title: 'no check after the return accepted; streams cut',
  },
  { model: 'lease', property: 'liveness', defines: ['NO_REDIS'], set: 'quick', title: 'confirms with Redis silent' },
  {
    model: 'lease',
    property: 'liveness',
    defines: ['NO_REDIS', 'PINNED'],
    set: 'quick',
    title: '… and no cursor ever passing',
  },
  {
    model: 'cursor',
    property: 'safety',
    defines: [],
    set: 'quick',
    title: 'nothing committed is missed or applied twice',
  },
  {
    model: 'cursor',
    property: 'safety',
    defines: ['RESTORES=0', 'TXS=4'],
    set: 'full',
    title: '… four transactions, no restore',
  },
  { model: 'replicas', property: 'safety', defines: [], set: 'quick', title: 'two revocations at once, real cursor' },
  { model: 'replicas', property: 'safety', defines: ['REAPER'], set: 'full', title: '… with reapers' },
  { model: 'replicas', property: 'safety', defines: ['LONG'], set: 'full', title: '… with a long transaction' },
  { model: 'replicas', property: 'safety', defines: ['LONG', 'REAPER'], set: 'deep', title: '… with both' },
  {
    model: 'replicas',
    property: 'liveness',
    defines: ['NO_REDIS'],
    set: 'full',
    title: 'both confirm with Redis silent',
  },
  {
    model: 'replicas',
    property: 'liveness',
    defines: ['NO_REDIS', 'LONG'],
    set: 'full',
    title: '… and xmin held back for ever',
  },
  {
    model: 'time',
    property: 'safety',
    defines: [],
    set: 'quick',
    title: 'leases and waits as numbers, clocks drifting',
  },
  { model: 'time', property: 'liveness', defines: [], set: 'full', title: 'confirms while time passes' },
  { model: 'creation', property: 'safety', defines: [], set: 'quick', title: 'no token is derived from a revoked one' },
  { model: 'primaries', property: 'safety', defines: [], set: 'quick', title: 'a deposed primary runs on' },
  { model: 'restored', property: 'safety', defines: ['TXS=1'], set: 'quick', title: 'a folder is put back in place' },
  { model: 'restored', property: 'safety', defines: ['NO_ROLLBACK'], set: 'full', title: '… two transactions' },
  { model: 'restored', property: 'safety', defines: [], set: 'deep', title: '… and anything rolled back' },
  {
    model: 'lease',
    property: 'safety',
    set: 'deep',
    title: 'two verifiers, in the smaller model',
    defines: ['N=2', 'NO_STREAMS', 'NO_STRAYS', 'NO_REAPER', 'NO_CRASHES'],
  },
];

/** The mutants by model; those with other defines than their model's usual ones carry them. */
const mutants = {
  lease: [
    'LEASES_BEFORE_COMMIT',
    'READ_BEFORE_LEASE',
    'POISONED_FILL_STORED',
    'RESET_WITHOUT_POISON',
    'APPLY_WITHOUT_POISON NO_STREAMS',
    'JOINER_WITHOUT_LEASE',
    'DEAD_ROW_DELETED_BLINDLY',
    'ACK_BEFORE_CUTTING',
    'ACK_BEFORE_APPLYING NO_STREAMS',
    'FORGED_ACK_ACCEPTED NO_STREAMS',
    'LEASE_BEFORE_APPLYING',
    'LATE_RESPONSE_TAKEN',
    'FILL_FROM_STANDBY',
    'ENTRY_READ_BEFORE_LEASE',
    'RELEASE_WHILE_RENEWING',
    'RELEASE_BEFORE_SILENT',
    'WAIT_WITHOUT_LEASE_END NO_REDIS',
    'WAIT_FOR_THE_ROW_AS_IT_STANDS NO_REDIS PINNED',
  ],
  cursor: [
    'CURSOR_BY_ID',
    'CURSOR_IS_XMAX',
    'CURSOR_STRICT',
    'TWO_STATEMENTS',
    'APPLIED_IDS_FORGOTTEN',
    'PRUNED_WITHOUT_RESET',
    'RESTORED_LOG_KEEPS_ITS_ID',
  ],
  replicas: [
    'CURSOR_BY_ID REAPER',
    'TWO_STATEMENTS REAPER',
    'CURSOR_AT_THE_INVALIDATION_CONFIRMS REAPER',
    'FILL_MATCHED_BY_ITS_ID_ALONE REAPER',
    'ACK_NAMES_NO_INVALIDATION REAPER',
    'LEASES_BEFORE_COMMIT REAPER',
    'READ_BEFORE_LEASE REAPER',
    'POISONED_FILL_STORED REAPER',
    'RESET_WITHOUT_POISON REAPER',
    'JOINER_WITHOUT_LEASE REAPER',
    'DEAD_ROW_DELETED_BLINDLY REAPER',
    'WAIT_FOR_THE_ROW_AS_IT_STANDS NO_REDIS LONG',
  ],
  time: [
    'COUNTED_FROM_THE_RESPONSE',
    'LENGTH_OF_ITS_OWN',
    'ROW_LENGTH_OVERWRITTEN',
    'WAIT_WITHOUT_ALLOWANCE',
    'REAPER_WITHOUT_ALLOWANCE',
    'WAIT_COUNTED_FROM_BEFORE_THE_COMMIT',
    'MONOTONIC_CLOCK_ALONE',
    'WALL_CLOCK_ALONE',
  ],
  creation: [
    'PARENT_NOT_LOCKED',
    'PARENT_NOT_READ_AGAIN',
    'DESCENDANTS_READ_BEFORE_THE_LOCK',
    'DESCENDANTS_IN_ONE_STATEMENT',
  ],
  primaries: [
    'NO_WINDOW',
    'WINDOW_FROM_THE_RETURN',
    'WINDOW_LONGER_THAN_IN_THE_LOG',
    'WARNING_IGNORED',
    'PROOF_ON_ANOTHER_CONNECTION',
    'LOG_READ_ELSEWHERE',
    'FILL_OF_ANOTHER_LOG_KEPT',
    'UNOWNED_LEASE_LEFT_OUT',
    'LEASES_READ_ON_THE_OLD',
  ],
  restored: [
    'NONCE_NOT_COMPARED TXS=1',
    'NONCE_PRESENTED_KEPT TXS=1',
    'CURSOR_NOT_CAPPED TXS=1',
    'CURSOR_OF_AN_UNKNOWN_NONCE_KEPT TXS=1',
    'CURSOR_OF_AN_UNKNOWN_NONCE_USED BUG_LOG_KEPT TXS=1',
    'CURSOR_BEYOND_THE_LOG_TAKEN BUG_NONCE_NOT_COMPARED TXS=1',
  ],
};
/** Mutants that break only liveness: that a revocation confirms. */
const harmsLivenessOnly = ['WAIT_WITHOUT_LEASE_END', 'WAIT_FOR_THE_ROW_AS_IT_STANDS'];

/** @type {Check[]} */
export const checks = [
  ...properties,
  ...Object.entries(mutants).flatMap(([model, list]) =>
    list.map((entry) => {
      const [mutant = '', ...defines] = entry.split(' ');
      return /** @type {Check} */ ({
        model,
        property: harmsLivenessOnly.includes(mutant) ? 'liveness' : 'safety',
        defines: [...defines, `BUG_${mutant}`],
        mutant,
        set: ['replicas', 'time', 'primaries', 'restored'].includes(model) ? 'full' : 'quick',
        title: mutant.toLowerCase().replaceAll('_', ' '),
      });
    }),
  ),
];

const order = ['quick', 'full', 'deep'];
/**
 * The checks of a set, the smaller sets included.
 * @param {string} set
 */
export const checksOf = (set) => checks.filter((check) => order.indexOf(check.set) <= order.indexOf(set));
