import { readFileSync } from 'node:fs';

const pollMs = 500;

/**
 * Detects the end of the npm process that runs this program. npm forwards SIGTERM only to its shell, which exits without
 * forwarding it, and a killed npm forwards nothing; the program would continue with no one to stop it. Does nothing when
 * npm does not run it.
 * @param {() => void} onGone called once
 */
export function watchNpm(onGone) {
  if (!process.env['npm_lifecycle_event']) return;
  const parent = process.ppid;
  // npm is the grandparent behind a shell, or the parent where the shell has replaced itself with this program.
  const grandparent = isShellOf(parent) ? parentOf(parent) : null;
  const timer = setInterval(() => {
    if (process.ppid === parent && (grandparent === null || parentOf(parent) === grandparent)) return;
    clearInterval(timer);
    onGone();
  }, pollMs);
  timer.unref();
}

/**
 * Whether a process is the shell that npm started for this program's script. Linux only.
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
    return null; // no such process, or not Linux
  }
}
