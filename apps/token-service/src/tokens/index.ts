export { RestoredTokensService } from './restored-tokens.service.js';
export { RevocationsService } from './revocations.service.js';
export { RevokeAllService } from './revoke-all.service.js';
export { TokenReader } from './token.reader.js';
export { TokensModule } from './tokens.module.js';
export { TokensService } from './tokens.service.js';
export { ReportsService } from './usage-reports.service.js';
