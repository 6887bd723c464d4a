import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { root } from './repository.mjs';

/** The minimum Node version for services. */
const runtimeMajor = 24;

/**
 * The Node for services and tests: the pinned one from node_modules, or on a platform without it, the current one if it
 * is new enough.
 * @returns {string} path of the executable
 * @throws Error naming what to install, when there is neither
 */
export function runtimeNode() {
  const pinned = path.join(root, 'node_modules', '.bin', 'node');
  if (existsSync(pinned)) return pinned;
  if (Number(process.versions.node.split('.')[0]) >= runtimeMajor) return process.execPath;
  throw new Error(
    `Latchkey runs on Node ${runtimeMajor}, which npm installs on Linux x64 only; this is Node ` +
      `${process.versions.node} on ${process.platform} ${process.arch}. Install Node ${runtimeMajor} and start again.`,
  );
}

/**
 * The environment for programs from node_modules: their folder is first on PATH, so that `node` is the pinned one.
 * @param {Record<string, string | undefined>} [extra]
 * @returns {NodeJS.ProcessEnv}
 */
export function toolEnvironment(extra = {}) {
  const bin = path.join(root, 'node_modules', '.bin');
  return { ...process.env, PATH: `${bin}${path.delimiter}${process.env['PATH'] ?? ''}`, ...extra };
}

/**
 * Runs a program to its end in the repository's folder, without standard input.
 * @param {string} command
 * @param {string[]} args
 * @param {{show?: boolean, env?: Record<string, string | undefined>}} [options] `show` prints its output
 *   (default: collected only); `env` is added to the environment
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
 * Continues on the services' Node: returns when that is the current one, else runs the same program with it and exits like
 * that process. Signals reach both; this process waits for the other.
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
    child.once('exit', (...result) => resolve(result));
  });
  process.exit(code ?? (signal === 'SIGINT' ? 130 : 143));
}
