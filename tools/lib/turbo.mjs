/** Arguments for every run of turbo: plain output, no stop at the first failure. */
export const turboArguments = ['--ui=stream', '--log-order=grouped', '--continue=always'];

/**
 * The tasks that turbo names as failed below its output, for the last line of a check.
 * @param {string} output of a failed run
 * @returns {string[]} such as `@latchkey/client#build`; just `turbo` when it names none
 */
export function failedTasks(output) {
  const named = /^\s*Failed:\s+(.+)$/m.exec(output)?.[1];
  return named ? named.split(',').map((task) => task.trim()) : ['turbo'];
}
