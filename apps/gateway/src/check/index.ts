export {
  type AuthorizationRequest,
  Checks,
  type Decision,
  errorForCut,
  isTemporary,
  type RateLimiter,
  type UsageCounter,
} from './checks.js';
