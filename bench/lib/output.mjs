/** Tables as text and Markdown, and a picture as SVG. */
import { readFileSync } from 'node:fs';
import { cpus } from 'node:os';

/** @typedef {string[]} Row */

/** Columns as wide as their widest cell. @param {Row} columns @param {Row[]} rows */
export function textTable(columns, rows) {
  const widths = columns.map((title, i) =>
    Math.max(...[title, ...rows.map((row) => row[i] ?? '')].map((t) => t.length)),
  );
  return [columns, ...rows]
    .map((row) =>
      columns
        .map((_, i) => (row[i] ?? '').padEnd(/** @type {number} */ (widths[i])))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** @param {Row} columns @param {Row[]} rows */
export function markdownTable(columns, rows) {
  const line = (/** @type {Row} */ cells) =>
    `| ${columns.map((_, i) => (cells[i] ?? '').replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(columns), line(columns.map((_, i) => (i === 0 ? '---' : '--:'))), ...rows.map(line)].join('\n');
}

/** Date, processor, Node and other programs, in a line. @param {Record<string, string>} versions by program */
export function machine(versions) {
  const all = cpus();
  const model = /** @type {{ model: string }} */ (all[0]).model.trim();
  const named = Object.entries({ Node: process.versions.node, ...versions }).map(([name, v]) => `${name} ${v}`);
  const system = /^PRETTY_NAME="?([^"\n]+)/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? process.platform;
  return `${new Date().toISOString().slice(0, 10)}, ${model}, ${all.length} processors, ${system}, ${named.join(', ')}`;
}

/** @param {string} text */
export const escaped = (text) =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');

/** @typedef {{ name: string, median: number, low: number, high: number, own?: boolean }} Bar */

const WIDTH = 760;
const NAMES = 220;
const VALUES = 130;
const LINE = 30;
const TOP = 64;
const SCALE = WIDTH - NAMES - VALUES;

/**
 * Horizontal bars with their lowest and highest values, readable on light and dark pages.
 * @param {{ title: string, subtitle: string, note: string, unit: string, digits: number, bars: Bar[] }} picture `own`
 *   bars are emphasised
 */
export function barsSvg({ title, subtitle, note, unit, digits, bars }) {
  const height = TOP + bars.length * LINE + 34;
  const most = Math.max(...bars.map(({ high }) => high));
  const x = (/** @type {number} */ value) => (NAMES + (most > 0 ? (value / most) * SCALE : 0)).toFixed(1);
  const lines = bars.flatMap(({ name, median, low, high, own }, i) => {
    const y = TOP + i * LINE;
    const middle = y + 11;
    return [
      `<text class="name${own ? ' own' : ''}" x="${NAMES - 10}" y="${y + 16}" text-anchor="end">${escaped(name)}</text>`,
      `<rect class="${own ? 'ours' : 'bar'}" x="${NAMES}" y="${y}" width="${(Number(x(median)) - NAMES).toFixed(1)}" height="22" rx="2"/>`,
      `<path class="range" d="M${x(low)} ${middle}H${x(high)}M${x(low)} ${middle - 4}v8M${x(high)} ${middle - 4}v8"/>`,
      `<text class="value" x="${(Number(x(high)) + 8).toFixed(1)}" y="${y + 16}">${median.toFixed(digits)} ${escaped(unit)}</text>`,
    ];
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="${escaped(title)}">
<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 16px; font-weight: 600 }
.own { font-weight: 600 }
.note { font-size: 11px; fill: #59636e }
.bar { fill: #8c959f }
.ours { fill: #0969da }
.range { stroke: #1f2328; fill: none }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc }
.note { fill: #9198a1 }
.bar { fill: #656c76 }
.ours { fill: #4493f8 }
.range { stroke: #f0f6fc }
}
</style>
<text class="title" x="10" y="24">${escaped(title)}</text>
<text class="note" x="10" y="44">${escaped(subtitle)}</text>
${lines.join('\n')}
<text class="note" x="10" y="${height - 12}">${escaped(note)}</text>
</svg>
`;
}
