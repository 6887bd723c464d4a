/** One check: spin generates a search program from the model, the compiler builds it, and it runs within bounded memory. */
import { execFile } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

const execute = promisify(execFile);
const here = import.meta.dirname;
const timeoutMs = 900_000;
/**
 * Memory limit of a search, in megabytes; it fails when it needs more.
 * @param {Pick<import('./checks.mjs').Check, 'set'>} check
 */
export const memoryMbOf = ({ set }) => (set === 'deep' ? 4000 : 1000);

/**
 * @typedef {object} Result
 * @property {number} states distinct states stored
 * @property {number} depth of the longest path searched
 * @property {number} seconds of the search alone
 * @property {number} megabytes
 * @property {string | null} violation what spin found, in its words; null when the property holds
 * @property {boolean} complete nothing was left out: no depth or memory bound reached, or a violation found
 * @property {string[]} unreached lines of the model that no run reached (a complete search without mutants has none)
 * @property {string} history the steps that lead to the violation, when asked for
 */

/**
 * @param {import('./checks.mjs').Check} check
 * @param {import('./toolchain.mjs').Toolchain} tools
 * @param {{history?: boolean}} [options]
 * @returns {Promise<Result>}
 */
export async function runCheck(check, tools, { history = false } = {}) {
  const { model, property, defines, mutant } = check;
  const cwd = mkdtempSync(path.join(tmpdir(), 'latchkey-model-'));
  const live = property === 'liveness';
  try {
    cpSync(path.join(here, `${model}.pml`), path.join(cwd, `${model}.pml`));
    cpSync(path.join(here, 'ranks.h'), path.join(cwd, 'ranks.h'));
    const options = { cwd, timeout: timeoutMs, maxBuffer: 64 * 1024 * 1024 };
    const switches = defines.map((name) => `-D${name}`);
    await execute(tools.spin, [`-P${tools.preprocessor}`, ...switches, '-a', `${model}.pml`], options);
    // COLLAPSE stores states in parts: slower, half the memory, and still every state.
    // Optimising takes longer than most mutants take to find.
    const flags = [
      mutant ? '-O0' : '-O2',
      `-DMEMLIM=${memoryMbOf(check)}`,
      ...(live ? ['-DNFAIR=3'] : ['-DSAFETY', '-DNOCLAIM', '-DCOLLAPSE']),
    ];
    const [compiler = '', ...args] = tools.compile('pan.c', path.join(cwd, 'pan'), flags);
    await execute(compiler, args, options);
    const startedAt = performance.now();
    const { stdout } = await execute(
      path.join(cwd, 'pan'),
      [...(live ? ['-a', '-f', '-m400000'] : ['-m400000']), '-w22'],
      options,
    );
    const seconds = (performance.now() - startedAt) / 1000;
    const read = (/** @type {RegExp} */ pattern) => pattern.exec(stdout)?.[1] ?? '';
    const violation = read(/^pan:1: (.*?) \(at depth/m) || null;
    const complete =
      /errors: (\d+)/.test(stdout) &&
      (violation !== null || !/max search depth too small|reached -DMEMLIM|Search not completed/.test(stdout));
    return {
      states: Number(read(/^\s*(\d+) states, stored/m)),
      depth: Number(read(/depth reached (\d+)/)),
      seconds,
      megabytes: Math.ceil(Number(read(/([\d.]+)\s+total actual memory usage/))),
      violation,
      complete,
      unreached: unreachedLines(stdout),
      history:
        history && violation
          ? (
              await execute(
                tools.spin,
                [`-P${tools.preprocessor}`, ...switches, '-t', '-p', '-g', `${model}.pml`],
                options,
              )
            ).stdout
          : '',
    };
  } finally {
    rmSync(cwd, { recursive: true, force: true });
  }
}

/** @param {string} output */
function unreachedLines(output) {
  return [...output.matchAll(/^\t(\S+\.pml:\d+), state \d+, "(.*)"$/gm)]
    .filter(([, , text]) => text !== '-end-' && text !== '(1)')
    .map(([, line, text]) => `${line} ${text}`);
}

/**
 * Why a result is not what was expected, or null.
 * @param {import('./checks.mjs').Check} check
 * @param {Result} result
 */
export function problemOf(check, result) {
  if (check.mutant) return result.violation ? null : 'the mutant was not found';
  if (result.violation) return `violated: ${result.violation}`;
  if (!result.complete) return `not searched completely (memory is bounded to ${memoryMbOf(check)} MB)`;
  return null;
}
