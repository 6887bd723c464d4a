/** @typedef {import('./trial.mjs').Outcome} Outcome */

/** How many checks, or other promises, broke the guarantee. @param {Outcome} outcome */
export const faultsOf = ({ stale, wronged, broken }) => stale + wronged + broken.length;

/** What one trial showed, at length. @param {Outcome} outcome */
export function summary(outcome) {
  const { name, checks, verdicts, stale, wronged, medianMs, maxMs, wholeMs, refused, revocations } = outcome;
  const { accepted, denied, unavailable, unreachable } = verdicts;
  return [
    name,
    `  ${checks} checks: ${accepted} accepted, ${denied} denied, ${unavailable} unavailable (503), ${unreachable} without a response`,
    `  stale accepts ${stale}, good tokens denied ${wronged}`,
    `  ${revocations} revocations took ${Math.round(medianMs)} ms (median), ${Math.round(maxMs)} ms at most, and returned otherwise ${refused} times before; recovered after ${Math.round(wholeMs)} ms`,
    `  confirmed by ${byOf(outcome)}`,
    ...outcome.broken.map((promise) => `  BROKEN: ${promise}`),
    ...outcome.examples.map((check) => `  ${JSON.stringify(check)}`),
  ].join('\n');
}

/** All trials as a Markdown table, with their sum: of one class the trials of all rounds. @param {readonly Outcome[]} outcomes */
export function table(outcomes) {
  const rows = [
    ['class', 'checks', 'stale', 'good denied', 'median ms', 'max ms', 'not effective at first', 'confirmed by'],
  ];
  for (const [name, ofClass] of Map.groupBy(outcomes, (outcome) => outcome.name)) {
    rows.push([name, ...cells(ofClass)]);
  }
  const classes = rows.length - 1;
  rows.push([`all ${classes} classes`, ...cells(outcomes)]);
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length)));
  const line = (/** @type {string[]} */ row) =>
    `| ${row.map((cell, i) => (isText(i) ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join(' | ')} |`;
  const rule = `|${widths.map((width, i) => (isText(i) ? '-'.repeat(width + 2) : `${'-'.repeat(width + 1)}:`)).join('|')}|`;
  return [line(rows[0] ?? []), rule, ...rows.slice(1).map(line)].join('\n');
}

const isText = (/** @type {number} */ column) => column === 0 || column === 7;

/** @param {readonly Outcome[]} outcomes */
function cells(outcomes) {
  const sum = (/** @type {(outcome: Outcome) => number} */ of) => outcomes.reduce((total, one) => total + of(one), 0);
  const medians = outcomes.map(({ medianMs }) => medianMs).sort((a, b) => a - b);
  /** @type {Record<string, number>} */
  const by = {};
  for (const one of outcomes) for (const [how, count] of Object.entries(one.by)) by[how] = (by[how] ?? 0) + count;
  return [
    String(sum(({ checks }) => checks)),
    String(sum(({ stale }) => stale)),
    String(sum(({ wronged }) => wronged)),
    String(Math.round(medians[Math.floor(medians.length / 2)] ?? 0)),
    String(Math.round(Math.max(0, ...outcomes.map(({ maxMs }) => maxMs)))),
    String(sum(({ refused }) => refused)),
    byOf({ by }),
  ];
}

/** @param {Pick<Outcome, 'by'>} outcome */
const byOf = ({ by }) =>
  Object.entries(by)
    .filter(([, count]) => count > 0)
    .map(([how, count]) => `${how} ${count}`)
    .join(', ') || 'none';
