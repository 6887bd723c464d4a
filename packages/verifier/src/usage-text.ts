import { USAGE_TEXT_MAX } from '@latchkey/contracts';
import { hideSecrets } from '@latchkey/token-format';

/** A secret that begins before the cut ends at most so many characters behind it. */
const SECRET_LENGTH_MAX = 64;

/**
 * A text of callers, as a usage batch can contain it: secrets hidden, cut, and without what PostgreSQL cannot store or JSON
 * writes six times as long.
 */
export function usageText(kind: keyof typeof USAGE_TEXT_MAX, text: string): string {
  const max = USAGE_TEXT_MAX[kind];
  const near = text.length > max + SECRET_LENGTH_MAX ? text.slice(0, max + SECRET_LENGTH_MAX) : text;
  const hidden = hideSecrets(near);
  // Hiding moves what is behind to the front: half a secret that the first cut has left there too.
  const cut = (near === text ? hidden : hidden.replace(HALF_A_SECRET, '$1...')).slice(0, max);
  return UNUSUAL.test(cut) ? cut.toWellFormed().replace(CONTROLS, '\uFFFD') : cut;
}

/** At the end, and not recognized by `hideSecrets`. */
const HALF_A_SECRET = /([a-z][a-z0-9]{0,15}_(?:pat|prj)_[0-9A-Za-z]{4})[0-9A-Za-z]{1,31}$/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is replaced
const CONTROLS = /[\0-\x1f\x7f]/g;
const UNUSUAL = /[^\x20-\x7e]/;
