/**
 * Prints problems, one a line; if there are any, the process will exit with 1.
 * @param {string[]} problems
 */
export function reportProblems(problems) {
  for (const problem of problems) console.error(problem);
  if (problems.length) process.exitCode = 1;
}
