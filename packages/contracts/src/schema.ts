/**
 * The migrations of this version, in their order. A service reads from the database which of them it has, and does not start
 * when one is missing. A new one is added at the end, under the name of its class.
 */
export const MIGRATIONS: readonly string[] = [
  'Base0000000000001',
  'SignInAndPolicy0000000000100',
  'TokenOrders0000000000110',
  'TokenSearch0000000000120',
  'RecoveryCodes0000000000121',
  'Letters0000000000122',
  'LocksInOrder0000000000123',
  'NoticesAndChain0000000000200',
  'JobsMarks0000000000201',
  'IdleWarnings0000000000202',
  'ExpiryByMark0000000000203',
  'Invalidation0000000000300',
  'Keys0000000000400',
  'Exposure0000000000410',
  'ExposureFamilies0000000000411',
  'History0000000000430',
  'ScopesInForce0000000000440',
  'RateBuckets0000000000450',
  'RevokeMany0000000000460',
  'Generations0000000000461',
  'Receipts0000000000470',
  'Peppers1796024900000',
  'Ledger1796025169089',
  'DatabaseIdentity1796052071289',
  'UncertainLedgers1796061600000',
  'SchemaVersion1796098773848',
  'RoutesHash1796098800000',
  'SettledMarks1796100000000',
];
