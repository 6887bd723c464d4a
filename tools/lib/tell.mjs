/**
 * Ends a check: prints what is wrong, one a line, and makes the process fail if there is anything.
 * @param {string[]} problems
 */
export function tell(problems) {
  for (const problem of problems) console.error(problem);
  if (problems.length) process.exitCode = 1;
}
