/** The result for an Authorization header that is not a scheme, one space and one word. */
export const MALFORMED = Symbol('malformed Authorization header');

/** The word after the scheme; undefined when the header is absent, empty or of another scheme. */
export type ReadAuthorization = string | typeof MALFORMED | undefined;

/**
 * Parses an Authorization header as strictly as passport-http-bearer does, which parses it elsewhere: the scheme in any
 * case, exactly one space, one word. The word can contain anything but spaces: the caller validates it. Never throws,
 * copies nothing but the word.
 * @param scheme in lower case, such as `bearer`
 * @param value unchanged; the caller has rejected requests with several headers
 */
export function readAuthorization(scheme: string, value: string | undefined): ReadAuthorization {
  if (value === undefined || value === '') return undefined;
  const space = value.indexOf(' ');
  if (space < 1 || space === value.length - 1 || value.indexOf(' ', space + 1) !== -1) return MALFORMED;
  if (space !== scheme.length || value.slice(0, space).toLowerCase() !== scheme) return undefined;
  return value.slice(space + 1);
}
