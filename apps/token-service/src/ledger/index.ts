export type { LedgerEntry } from './entry.js';
export { LedgerFolder } from './folder.js';
export type { LedgerFindings, Standing } from './follower.js';
export { LedgerFault, ledgerKey } from './format.js';
export { LedgerModule } from './ledger.module.js';
export { LedgerService } from './ledger.service.js';
