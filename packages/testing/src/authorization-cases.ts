/**
 * What is read of an Authorization header: nothing (401 `unauthenticated`), something that cannot be read (400
 * `invalid_request`), the caller's secret, or another text in its place (401 `invalid_token`).
 */
export type AuthorizationRead = 'absent' | 'malformed' | 'secret' | 'other';

export interface AuthorizationCase {
  readonly name: string;
  /** The header as often as it comes, around the secret of a token that is in force. */
  readonly values: (secret: string) => readonly string[];
  readonly read: AuthorizationRead;
  /** What is read where nobody has taken off the space around the value, which HTTP/1.1 does. Default: `read`. */
  readonly untrimmed?: AuthorizationRead;
}

const one = (
  name: string,
  value: (secret: string) => string,
  read: AuthorizationRead,
  untrimmed: AuthorizationRead = read,
): AuthorizationCase => ({ name, values: (secret) => [value(secret)], read, untrimmed });

const LONG = 'a'.repeat(8_000);

/** The one table of Authorization headers. Every parser that reads the header is tested with all of it. */
export const AUTHORIZATION_CASES: readonly AuthorizationCase[] = [
  one('Bearer and the secret', (s) => `Bearer ${s}`, 'secret'),
  one('the scheme in lower case', (s) => `bearer ${s}`, 'secret'),
  one('the scheme in mixed case', (s) => `bEARER ${s}`, 'secret'),
  { name: 'no header', values: () => [], read: 'absent' },
  one('an empty header', () => '', 'absent'),
  one('spaces alone', () => '  ', 'absent', 'malformed'),
  one('another scheme', () => 'Basic dXNlcjpwYXNz', 'absent'),
  one('another scheme around the secret', (s) => `Token ${s}`, 'absent'),
  one('a longer scheme that begins alike', (s) => `Bearers ${s}`, 'absent'),
  one('another scheme with parameters', () => 'Digest username="a", realm="b"', 'malformed'),
  one('the scheme alone', () => 'Bearer', 'malformed'),
  one('the scheme and a space', () => 'Bearer ', 'malformed'),
  one('the scheme and two spaces', () => 'Bearer  ', 'malformed'),
  one('the secret alone', (s) => s, 'malformed'),
  one('the scheme and the secret without a space', (s) => `Bearer${s}`, 'malformed'),
  one('two spaces between', (s) => `Bearer  ${s}`, 'malformed'),
  one('a tab between', (s) => `Bearer\t${s}`, 'malformed'),
  one('a tab after the space', (s) => `Bearer \t${s}`, 'other'),
  one('a tab before the space', (s) => `Bearer\t ${s}`, 'absent'),
  one('two words', (s) => `Bearer ${s} ${s}`, 'malformed'),
  one('a space after', (s) => `Bearer ${s} `, 'secret', 'malformed'),
  one('a tab after', (s) => `Bearer ${s}\t`, 'secret', 'other'),
  one('a space before', (s) => ` Bearer ${s}`, 'secret', 'malformed'),
  { name: 'two headers', values: (s) => [`Bearer ${s}`, `Bearer ${s}`], read: 'malformed' },
  { name: 'two headers, the second empty', values: (s) => [`Bearer ${s}`, ''], read: 'malformed' },
  { name: 'two headers of two schemes', values: (s) => ['Basic eDp5', `Bearer ${s}`], read: 'malformed' },
  one('two in one header', (s) => `Bearer ${s}, Bearer ${s}`, 'malformed'),
  one('two in one header without a space', (s) => `Bearer ${s},Bearer ${s}`, 'malformed'),
  one('two secrets in one word', (s) => `Bearer ${s},${s}`, 'other'),
  one('a comma after the secret', (s) => `Bearer ${s},`, 'other'),
  one('the secret in quotes', (s) => `Bearer "${s}"`, 'other'),
  one('characters beyond b64token', () => 'Bearer !@{}|\\^`', 'other'),
  one('characters beyond ASCII', () => 'Bearer s\u00e9cret', 'other'),
  one('a no-break space after', (s) => `Bearer ${s}\u00a0`, 'other'),
  one('8,000 characters', () => `Bearer ${LONG}`, 'other'),
];
