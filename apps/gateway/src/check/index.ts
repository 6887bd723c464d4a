export {
  type AuthorizationRequest,
  Checks,
  type Decision,
  type RateLimiter,
  type UsageCounter,
} from './checks.js';
