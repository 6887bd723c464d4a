export {
  type Accounting,
  Checks,
  type Decision,
  type Inquiry,
  type RateLimiting,
  type Verifying,
} from './checks.js';
