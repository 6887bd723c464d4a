/** Read from an Authorization header that holds something else than a scheme, one space and one word. */
export const MALFORMED = Symbol('malformed Authorization header');

/** The word after the scheme; undefined when the header is absent, empty or of another scheme. */
export type ReadAuthorization = string | typeof MALFORMED | undefined;

/**
 * Reads an Authorization header as strictly as passport-http-bearer does, which reads the same header elsewhere: the
 * scheme in any case, exactly one space, one word. The word may hold anything but spaces: whoever checks it judges it.
 * Never throws, copies nothing but the word.
 * @param scheme in lower case, such as `bearer`
 * @param value as it came; several headers must have been refused before
 */
export function readAuthorization(scheme: string, value: string | undefined): ReadAuthorization {
  if (value === undefined || value === '') return undefined;
  const space = value.indexOf(' ');
  if (space < 1 || space === value.length - 1 || value.indexOf(' ', space + 1) !== -1) return MALFORMED;
  if (space !== scheme.length || value.slice(0, space).toLowerCase() !== scheme) return undefined;
  return value.slice(space + 1);
}
