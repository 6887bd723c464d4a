/** Median, lowest and highest. @param {readonly number[]} values */
export function summary(values) {
  const sorted = [...values].sort((a, b) => a - b);
  if (sorted.length === 0) return { median: Number.NaN, low: Number.NaN, high: Number.NaN };
  const at = (/** @type {number} */ i) => /** @type {number} */ (sorted[i]);
  const middle = Math.floor(sorted.length / 2);
  const median = sorted.length % 2 ? at(middle) : (at(middle - 1) + at(middle)) / 2;
  return { median, low: at(0), high: at(sorted.length - 1) };
}

/** @typedef {ReturnType<typeof summary>} Summary */

/**
 * The smallest value that at least this share of all do not exceed (nearest rank).
 * @param {ArrayLike<number>} sorted ascending
 * @param {number} share 0.99: p99
 */
export function percentileOf(sorted, share) {
  // The product can lie a little above a whole number that it should be: 0.07 * 100.
  const rank = Math.ceil(sorted.length * share - 1e-9);
  return sorted[Math.max(0, rank - 1)] ?? Number.NaN;
}

/**
 * The ratio a / b of each round, and what they add up to: what else the machine does in a round meets both.
 * @param {readonly number[]} a
 * @param {readonly number[]} b of the same rounds
 */
export function pairedRatios(a, b) {
  if (a.length !== b.length) throw new Error(`${a.length} rounds cannot be paired with ${b.length}`);
  return summary(a.map((value, round) => value / /** @type {number} */ (b[round])));
}

/** As text: the median, and the lowest and highest in brackets. @param {Summary} summary @param {number} digits */
export const spread = ({ median, low, high }, digits) =>
  `${median.toFixed(digits)} (${low.toFixed(digits)}–${high.toFixed(digits)})`;
