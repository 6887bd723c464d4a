/**
 * What is checked: every property that must hold, searched completely, and every planted mistake that must be found.
 *
 * @typedef {object} Check
 * @property {string} model the .pml file without its ending
 * @property {'safety' | 'liveness'} property
 * @property {string[]} defines switches of the model, without -D
 * @property {string} [mistake] the planted mistake; without one the property must hold
 * @property {'quick' | 'full' | 'deep'} set the smallest set that it belongs to
 * @property {string} says what is shown, for the table
 */

/** @type {Check[]} */
const holds = [
  {
    model: 'lease',
    property: 'safety',
    defines: [],
    set: 'quick',
    says: 'no check after the return accepted; streams cut',
  },
  { model: 'lease', property: 'liveness', defines: ['NO_REDIS'], set: 'quick', says: 'confirms with Redis silent' },
  {
    model: 'lease',
    property: 'liveness',
    defines: ['NO_REDIS', 'PINNED'],
    set: 'quick',
    says: '… and no cursor ever passing',
  },
  {
    model: 'cursor',
    property: 'safety',
    defines: [],
    set: 'quick',
    says: 'nothing committed is missed or applied twice',
  },
  {
    model: 'cursor',
    property: 'safety',
    defines: ['RESTORES=0', 'TXS=4'],
    set: 'full',
    says: '… four transactions, no restore',
  },
  { model: 'replicas', property: 'safety', defines: [], set: 'quick', says: 'two revocations at once, real cursor' },
  { model: 'replicas', property: 'safety', defines: ['JUDGE'], set: 'full', says: '… with judges' },
  { model: 'replicas', property: 'safety', defines: ['LONG'], set: 'full', says: '… with a long transaction' },
  { model: 'replicas', property: 'safety', defines: ['LONG', 'JUDGE'], set: 'deep', says: '… with both' },
  {
    model: 'replicas',
    property: 'liveness',
    defines: ['NO_REDIS'],
    set: 'full',
    says: 'both confirm with Redis silent',
  },
  {
    model: 'replicas',
    property: 'liveness',
    defines: ['NO_REDIS', 'LONG'],
    set: 'full',
    says: '… and xmin held back for ever',
  },
  {
    model: 'time',
    property: 'safety',
    defines: [],
    set: 'quick',
    says: 'leases and waits as numbers, clocks drifting',
  },
  { model: 'time', property: 'liveness', defines: [], set: 'full', says: 'confirms while time passes' },
  { model: 'creation', property: 'safety', defines: [], set: 'quick', says: 'nothing is made below a revoked token' },
  { model: 'primaries', property: 'safety', defines: [], set: 'quick', says: 'a deposed primary lives on' },
  { model: 'place', property: 'safety', defines: ['TXS=1'], set: 'quick', says: 'a folder is put back in place' },
  { model: 'place', property: 'safety', defines: ['NO_ROLLBACK'], set: 'full', says: '… two transactions' },
  { model: 'place', property: 'safety', defines: [], set: 'deep', says: '… and anything rolled back' },
  {
    model: 'lease',
    property: 'safety',
    set: 'deep',
    says: 'two verifiers, in the smaller model',
    defines: ['N=2', 'NO_STREAMS', 'NO_STRAYS', 'NO_JUDGE', 'NO_CRASHES'],
  },
];

/** The mistakes by model; those with other defines than their model's usual ones carry them. */
const mistakes = {
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
    'FORGED_ACK_BELIEVED NO_STREAMS',
    'LEASE_BEFORE_APPLYING',
    'LATE_ANSWER_TAKEN',
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
    'CURSOR_BY_ID JUDGE',
    'TWO_STATEMENTS JUDGE',
    'CURSOR_AT_THE_INVALIDATION_CONFIRMS JUDGE',
    'FILL_MATCHED_BY_ITS_ID_ALONE JUDGE',
    'ACK_NAMES_NO_INVALIDATION JUDGE',
    'LEASES_BEFORE_COMMIT JUDGE',
    'READ_BEFORE_LEASE JUDGE',
    'POISONED_FILL_STORED JUDGE',
    'RESET_WITHOUT_POISON JUDGE',
    'JOINER_WITHOUT_LEASE JUDGE',
    'DEAD_ROW_DELETED_BLINDLY JUDGE',
    'WAIT_FOR_THE_ROW_AS_IT_STANDS NO_REDIS LONG',
  ],
  time: [
    'COUNTED_FROM_THE_ANSWER',
    'LENGTH_OF_ITS_OWN',
    'ROW_LENGTH_OVERWRITTEN',
    'WAIT_WITHOUT_ALLOWANCE',
    'JUDGE_WITHOUT_ALLOWANCE',
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
    'WINDOW_LONGER_THAN_THE_LOG_SAYS',
    'WARNING_NOT_HEARD',
    'PROOF_ON_ANOTHER_CONNECTION',
    'LOG_READ_ELSEWHERE',
    'FILL_OF_ANOTHER_LOG_KEPT',
    'NOBODYS_LEASE_LEFT_OUT',
    'LEASES_READ_ON_THE_OLD',
  ],
  place: [
    'NONCE_NOT_COMPARED TXS=1',
    'NONCE_PRESENTED_KEPT TXS=1',
    'CURSOR_NOT_CAPPED TXS=1',
    'CURSOR_OF_A_NONCE_NOT_KNOWN_KEPT TXS=1',
    'CURSOR_OF_A_NONCE_NOT_KNOWN_USED BUG_LOG_KEPT TXS=1',
    'CURSOR_BEYOND_THE_LOG_TAKEN BUG_NONCE_NOT_COMPARED TXS=1',
  ],
};
/** Mistakes that break only the promise that a revocation confirms. */
const harmsLivenessOnly = ['WAIT_WITHOUT_LEASE_END', 'WAIT_FOR_THE_ROW_AS_IT_STANDS'];

/** @type {Check[]} */
export const checks = [
  ...holds,
  ...Object.entries(mistakes).flatMap(([model, list]) =>
    list.map((entry) => {
      const [mistake = '', ...defines] = entry.split(' ');
      return /** @type {Check} */ ({
        model,
        property: harmsLivenessOnly.includes(mistake) ? 'liveness' : 'safety',
        defines: [...defines, `BUG_${mistake}`],
        mistake,
        set: ['replicas', 'time', 'primaries', 'place'].includes(model) ? 'full' : 'quick',
        says: mistake.toLowerCase().replaceAll('_', ' '),
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
