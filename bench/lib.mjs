let missed = 0;

/**
 * Prints a figure beside its target; a missed one makes the process end with code 1.
 * @param {string} what
 * @param {number} value
 * @param {number} [atMost] the target; none: only reported
 * @param {string} [unit]
 */
export function report(what, value, atMost, unit = '') {
  const ok = atMost === undefined || value <= atMost;
  if (!ok) missed++;
  const target = atMost === undefined ? '' : `  target ≤ ${atMost}${unit}${ok ? '' : '  MISSED'}`;
  console.log(`  ${what.padEnd(62)} ${String(Math.round(value * 100) / 100).padStart(9)}${unit}${target}`);
  process.exitCode = missed ? 1 : 0;
}

/** @param {number[]} values @param {number} share 0.5: the median */
export function percentile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}
