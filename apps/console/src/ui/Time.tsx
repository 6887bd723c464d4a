import { hint } from './Hints.js';

const exact = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'long' });
const relative = new Intl.RelativeTimeFormat('en', { numeric: 'auto' });
/** "3d ago", for tables. */
const brief = new Intl.RelativeTimeFormat('en', { style: 'narrow' });
const UNITS: [Intl.RelativeTimeFormatUnit, number][] = [
  ['year', 31_557_600],
  ['month', 2_629_800],
  ['week', 604_800],
  ['day', 86_400],
  ['hour', 3_600],
  ['minute', 60],
];

/** "3 days ago", "in 2 hours"; below a minute "just now". */
export function fromNow(iso: string, nowMs = Date.now(), format = relative): string {
  const seconds = (Date.parse(iso) - nowMs) / 1_000;
  for (const [unit, size] of UNITS) {
    if (Math.abs(seconds) >= size) return format.format(Math.round(seconds / size), unit);
  }
  return seconds > 0 ? 'in a moment' : 'just now';
}

/** A time as people say it, in the reader's zone, with the exact one on hover. */
export function Time({ iso, short = false }: { iso: string; short?: boolean }) {
  return (
    <time dateTime={iso} {...hint(exact.format(new Date(iso)))}>
      {fromNow(iso, Date.now(), short ? brief : relative)}
    </time>
  );
}

const written = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });

/** The exact time in the reader's zone, and how long ago. */
export function ExactTime({ iso }: { iso: string }) {
  return (
    <>
      {written.format(new Date(iso))} (<Time iso={iso} />)
    </>
  );
}
