/**
 * `npm start`: installs what is missing, builds what has changed, then runs the launcher (tools/src/main.ts) on the
 * services' Node. Runs on any Node >= 20.19 and needs no installed packages.
 */
import { spawn } from 'node:child_process';
import path from 'node:path';
import { installWhatIsMissing } from './lib/install.mjs';
import { watchNpm } from './lib/parents.mjs';
import { run, runtimeNode, toolEnvironment } from './lib/processes.mjs';
import { root } from './lib/repository.mjs';
import { turboArguments } from './lib/turbo.mjs';

/** What the launcher starts, and the launcher. */
const programs = ['./apps/*', '@latchkey/tools', '@latchkey/demo-upstream'];

async function build() {
  const filters = programs.map((program) => `--filter=${program}`);
  const { code, output } = await run('turbo', [
    'run',
    'build',
    ...filters,
    ...turboArguments,
    '--output-logs=errors-only',
  ]);
  if (code !== 0) throw new Error(`the build failed:\n${output}`);
}

async function main() {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    throw new Error(`this is Node ${process.versions.node}; install Node 20.19 or newer`);
  }
  await installWhatIsMissing();
  console.log('building what has changed');
  await build();

  const launcher = path.join(root, 'tools', 'dist', 'main.js');
  // The IPC channel is unused; its end tells the launcher that this process has exited.
  const child = spawn(runtimeNode(), [launcher, root], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    env: toolEnvironment(),
  });
  // The terminal sends Ctrl-C to the launcher too, which ignores the repetition.
  for (const signal of /** @type {NodeJS.Signals[]} */ (['SIGINT', 'SIGTERM', 'SIGHUP'])) {
    process.on(signal, () => child.kill(signal));
  }
  watchNpm(() => child.kill('SIGTERM'));
  process.exitCode = await new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code) => resolve(code ?? 1));
  });
}

main().catch((error) => {
  console.error(`Latchkey cannot start: ${error.message}`);
  process.exitCode = 1;
});
