import { readFileSync } from 'node:fs';

const lookEveryMs = 500;

/**
 * Tells when the npm that runs this program has gone. npm hands SIGTERM to its shell alone, which dies of it without a
 * word to the program, and a killed npm tells nobody; the program would go on running with no one there to stop it.
 * Does nothing when npm does not run it.
 * @param {() => void} onGone called once
 */
export function watchNpm(onGone) {
  if (!process.env['npm_lifecycle_event']) return;
  const parent = process.ppid;
  // npm itself may stand behind a shell, or be the parent where the shell made way for this program.
  const grandparent = isShellOf(parent) ? parentOf(parent) : null;
  const timer = setInterval(() => {
    if (process.ppid === parent && (grandparent === null || parentOf(parent) === grandparent)) return;
    clearInterval(timer);
    onGone();
  }, lookEveryMs);
  timer.unref();
}

/**
 * Whether a process is the shell that npm started for this program's script. Told on Linux only.
 * @param {number} pid
 */
function isShellOf(pid) {
  const line = read(`/proc/${pid}/cmdline`);
  return line !== null && /^(?:\S*\/)?(?:sh|bash|dash|ash|zsh)\0-c\0/.test(line);
}

/**
 * @param {number} pid
 * @returns {number | null}
 */
function parentOf(pid) {
  const stat = read(`/proc/${pid}/stat`);
  return stat === null ? null : Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
}

/** @param {string} file */
function read(file) {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return null; // No such process, or not Linux.
  }
}
