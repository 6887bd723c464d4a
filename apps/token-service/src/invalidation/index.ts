export { InvalidationModule } from './invalidation.module.js';
export {
  forgotten,
  type Invalidation,
  InvalidationService,
  IS_SETTLED,
  type NewInvalidation,
  NOTHING_NARROWED,
  receiptAsSeen,
} from './invalidation.service.js';
export { callerOf } from './postgres-store.js';
export { ReceiptsService } from './receipts.service.js';
export { lapsedAfterMs } from './types.js';
