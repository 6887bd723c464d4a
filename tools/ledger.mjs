/** `npm run ledger`: runs the ledger's commands on the services' Node, for the home of `npm start`. See docs/ledger.md. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { runtimeNode, toolEnvironment } from './lib/processes.mjs';
import { root } from './lib/repository.mjs';

const program = path.join(root, 'apps', 'token-service', 'dist', 'ledger-command.js');
const launcher = path.join(root, 'tools', 'dist', 'ledger.js');

async function main() {
  if (!existsSync(program) || !existsSync(launcher))
    throw new Error('Latchkey is not built yet: run npm start once, or npm run build');
  const { ledgerSettings } = await import(launcher);
  const env = { ...toolEnvironment(), ...ledgerSettings(root, process.env) };
  const child = spawn(runtimeNode(), [program, ...process.argv.slice(2)], { stdio: 'inherit', env });
  process.exitCode = await new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code) => resolve(code ?? 1));
  });
}

main().catch((error) => {
  console.error(`ledger: ${error.message}`);
  process.exitCode = 1;
});
