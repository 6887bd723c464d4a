/** How every command of this repository runs turbo: plain output, and on to the end when something fails. */
export const turboArguments = ['--ui=stream', '--log-order=grouped', '--continue=always'];

/**
 * The tasks that turbo names as failed below its output, for the last line of a check.
 * @param {string} output of a run that ended badly
 * @returns {string[]} such as `@latchkey/client#build`; `turbo` alone when it names none
 */
export function failedTasks(output) {
  const named = /^\s*Failed:\s+(.+)$/m.exec(output)?.[1];
  return named ? named.split(',').map((task) => task.trim()) : ['turbo'];
}
