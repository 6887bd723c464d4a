export { InvalidationModule } from './invalidation.module.js';
export {
  changeLost,
  type Invalidation,
  InvalidationService,
  IS_RECONFIRMED,
  type NewInvalidation,
  NO_INVALIDATION,
  receiptAsSeen,
} from './invalidation.service.js';
export { LeaseRefused } from './leases.js';
export { callerOf } from './postgres-store.js';
export { ReceiptsService } from './receipts.service.js';
export { lapsedAfterMs } from './types.js';
