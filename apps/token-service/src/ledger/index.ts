export type { LedgerEntry } from './entry.js';
export { LedgerFolder } from './folder.js';
export { LedgerFault, ledgerKey } from './format.js';
export { LedgerModule } from './ledger.module.js';
export { type LedgerFindings, LedgerService, type Standing } from './ledger.service.js';
