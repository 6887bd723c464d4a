export type { LedgerFindings } from './comparison.js';
export type { LedgerEntry } from './entry.js';
export { LedgerFolder } from './folder.js';
export { LedgerFault, ledgerKey } from './format.js';
export { LedgerModule } from './ledger.module.js';
export { LedgerService } from './ledger.service.js';
export type { Standing } from './standing.js';
