export { LocksService, lockRows } from './locks.service.js';
export { OwnVerifierService } from './own-verifier.service.js';
export { lackingOf } from './peppers.queries.js';
export { PeppersService } from './peppers.service.js';
export { mustBeRecent, selectRecentSignIn } from './recent-sign-in.js';
export { SecretHasher } from './secret-hasher.js';
export { SnapshotService } from './snapshot.service.js';
export { VerificationModule } from './verification.module.js';
export { VerificationService } from './verification.service.js';
