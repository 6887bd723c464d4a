import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { secretFiles } from './secrets.js';
import { readSettings } from './settings.js';

/**
 * The settings of the ledger's commands, as `npm start` gives them to the token-service.
 * @param root the repository
 * @throws Error when the home has never been started
 */
export function ledgerSettings(root: string, env: NodeJS.ProcessEnv): { LEDGER_DIR: string; LEDGER_KEY: string } {
  const { home, ledgerDir } = readSettings(root, env);
  const file = path.join(home, 'secrets', secretFiles.LEDGER_KEY);
  const key = env['LEDGER_KEY'] || (existsSync(file) ? readFileSync(file, 'utf8') : undefined);
  if (!key) throw new Error(`${file} does not exist: LATCHKEY_HOME names the folder of npm start, or set LEDGER_KEY`);
  return { LEDGER_DIR: ledgerDir, LEDGER_KEY: key };
}
