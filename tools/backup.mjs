/**
 * `npm run backup` and `npm run restore`: installs and builds what is missing, then runs tools/src/backup.ts on the services'
 * Node. What exists is not built again: services run from it.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { installWhatIsMissing } from './lib/install.mjs';
import { run, runtimeNode, toolEnvironment } from './lib/processes.mjs';
import { root } from './lib/repository.mjs';
import { turboArguments } from './lib/turbo.mjs';

const program = path.join(root, 'tools', 'dist', 'backup.js');
const migration = path.join(root, 'apps', 'token-service', 'dist', 'migrate.js');

async function main() {
  if (!existsSync(program) || !existsSync(migration)) {
    await installWhatIsMissing();
    console.error('building');
    const filters = ['--filter=@latchkey/tools', '--filter=@latchkey/token-service'];
    const { code, output } = await run('turbo', ['run', 'build', ...filters, ...turboArguments]);
    if (code !== 0) throw new Error(`the build failed:\n${output}`);
  }
  const child = spawn(runtimeNode(), [program, ...process.argv.slice(2)], { stdio: 'inherit', env: toolEnvironment() });
  for (const signal of /** @type {NodeJS.Signals[]} */ (['SIGINT', 'SIGTERM', 'SIGHUP']))
    process.on(signal, () => child.kill(signal));
  process.exitCode = await new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code) => resolve(code ?? 1));
  });
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
