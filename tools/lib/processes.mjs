import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { root } from './repository.mjs';

/** The oldest Node that the services themselves run under. */
const runtimeMajor = 24;

/**
 * The Node that services and tests run under: the pinned one from node_modules, or on a platform that it does not
 * come for, the one running now if it is new enough.
 * @returns {string} path of the executable
 * @throws when there is neither, saying what to install
 */
export function runtimeNode() {
  const pinned = path.join(root, 'node_modules', '.bin', 'node');
  if (existsSync(pinned)) return pinned;
  if (Number(process.versions.node.split('.')[0]) >= runtimeMajor) return process.execPath;
  throw new Error(
    `Latchkey runs under Node ${runtimeMajor}, which npm brings along on Linux x64 only; this is Node ` +
      `${process.versions.node} on ${process.platform} ${process.arch}. Install Node ${runtimeMajor} and start again.`,
  );
}

/**
 * The environment for programs from node_modules: their folder stands first on PATH, so that `node` is the pinned one.
 * @param {Record<string, string | undefined>} [extra]
 * @returns {NodeJS.ProcessEnv}
 */
export function toolEnvironment(extra = {}) {
  const bin = path.join(root, 'node_modules', '.bin');
  return { ...process.env, PATH: `${bin}${path.delimiter}${process.env['PATH'] ?? ''}`, ...extra };
}

/**
 * Runs a program from the repository's folder to its end, without a terminal to ask at.
 * @param {string} command
 * @param {string[]} args
 * @param {{show?: boolean, env?: Record<string, string | undefined>}} [options] `show` passes its output on as it
 *   comes (default: collected only); `env` is added to the environment
 * @returns {Promise<{code: number, output: string}>} `output` is empty with `show`
 */
export function run(command, args, options = {}) {
  return new Promise((resolve, reject) => {
    const stdio = options.show ? 'inherit' : 'pipe';
    const child = spawn(command, args, {
      cwd: root,
      env: toolEnvironment(options.env),
      stdio: ['ignore', stdio, stdio],
    });
    let output = '';
    child.stdout?.on('data', (chunk) => {
      output += chunk;
    });
    child.stderr?.on('data', (chunk) => {
      output += chunk;
    });
    child.on('error', reject);
    child.on('close', (code) => resolve({ code: code ?? 1, output }));
  });
}

/**
 * Goes on under the Node that the services run under: returns when that is the one running now, else runs the same
 * program again with it and ends this process as that one ends. Signals reach both; this one waits for the other.
 * @param {string} file the program's own path
 * @returns {Promise<void>}
 */
export async function underRuntimeNode(file) {
  if (Number(process.versions.node.split('.')[0]) >= runtimeMajor) return;
  const child = spawn(runtimeNode(), [file, ...process.argv.slice(2)], { stdio: 'inherit', env: toolEnvironment() });
  for (const signal of /** @type {NodeJS.Signals[]} */ (['SIGINT', 'SIGTERM', 'SIGHUP'])) {
    process.on(signal, () => child.kill(signal));
  }
  const [code, signal] = await new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (...how) => resolve(how));
  });
  process.exit(code ?? (signal === 'SIGINT' ? 130 : 143));
}
