/** A request target (RFC 9112 section 3.2.1) that every program behind the gateway reads alike. */
export interface Target {
  /** What is forwarded: letters, digits, `-`, `.`, `_` and `~` decoded, nothing else changed. */
  readonly path: string;
  /** What routes are matched against: `path` without `;parameters`, which some servers drop. */
  readonly match: string;
  /** With its `?`; empty without one. */
  readonly query: string;
  /**
   * With encoded slashes or backslashes in the path, or anything that is encoded twice: every path that a program can make of it. It is
   * safe only where all of them belong to the same route. Undefined without.
   */
  readonly readings: readonly string[] | undefined;
  /** Some are encoded once, so that the route has to accept them. */
  readonly hasEncodedSlashes: boolean;
}

export interface BadTarget {
  readonly code: 'invalid_request' | 'uri_too_long';
  readonly detail: string;
}

export const TARGET_LENGTH_MAX = 8_192;

/** Paths of plain characters whose segments are neither empty nor begin with a dot: nearly all. */
const PLAIN =
  /^\/(?:[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9_~!$&'()*+,=:@.-]*\/)*(?:[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9_~!$&'()*+,=:@.-]*)?$/;
const OTHER_CHARACTER = /[^\x21\x22\x24-\x7e]/;
const BAD_ESCAPE = /%(?![0-9A-Fa-f]{2})/;
const UNRESERVED_ESCAPE = /%(?:2[de]|3[0-9]|[46][1-9a-f]|[57][0-9a]|5f|7e)/gi;
const QUERY_TOKEN = 'access_token';

const ENCODED_SLASH = /%(?:2f|5c)/i;
/** What can be decoded again after it was decoded. */
const ENCODED_TWICE = '%25';
/** Paths that are encoded more often are refused. */
const DECODINGS_MAX = 4;
/** Paths that are read in several ways have at most so many segments: each reading is matched. */
const SEGMENTS_READ_MAX = 100;

const bad = (detail: string): BadTarget => ({ code: 'invalid_request', detail });

/** For encoded slashes in a path whose route does not accept them. */
export const ENCODED_SLASH_REFUSED = bad('The path contains an encoded slash or backslash.');

/**
 * Parses a request target in origin form. Refused is what programs read differently: dot segments, in any encoding,
 * backslashes, NUL, empty segments, encoded slashes and backslashes, broken escapes; and a token in the query
 * (RFC 6750 section 5.3), which would be logged.
 * @param encodedSlashes true: accepts encoded slashes and backslashes. What is encoded more than once is accepted
 *   anyway. Beside either, no parameters are, nor dot segments between them, and the caller has to ask the routes about `readings`
 */
export function readTarget(raw: string, encodedSlashes = false): Target | BadTarget {
  if (raw.length > TARGET_LENGTH_MAX)
    return {
      code: 'uri_too_long',
      detail: `The request target has ${raw.length} characters; the limit is ${TARGET_LENGTH_MAX}.`,
    };
  const questionMark = raw.indexOf('?');
  const rawPath = questionMark < 0 ? raw : raw.slice(0, questionMark);
  const query = questionMark < 0 ? '' : raw.slice(questionMark);
  if (query !== '') {
    if (OTHER_CHARACTER.test(query)) return bad('The query contains a character that must be percent-encoded.');
    if (namesToken(query))
      return bad('A token must not be sent in the query, which is logged. Send it as "Authorization: Bearer".');
  }
  return PLAIN.test(rawPath)
    ? { path: rawPath, match: rawPath, query, readings: undefined, hasEncodedSlashes: false }
    : readUnusualPath(rawPath, query, encodedSlashes);
}

function readUnusualPath(raw: string, query: string, encodedSlashes: boolean): Target | BadTarget {
  if (raw[0] !== '/') return bad('The request target must begin with "/"; other forms are not supported.');
  if (OTHER_CHARACTER.test(raw)) return bad('The path contains a character that must be percent-encoded.');
  const hasEncodedSlashes = ENCODED_SLASH.test(raw);
  if (raw.includes('\\') || (!encodedSlashes && /%5c/i.test(raw))) return bad('The path contains a backslash.');
  if (BAD_ESCAPE.test(raw)) return bad('The path contains a "%" that is not followed by two hexadecimal digits.');
  if (/%00/.test(raw)) return bad('The path contains an encoded NUL.');
  if (hasEncodedSlashes && !encodedSlashes) return ENCODED_SLASH_REFUSED;
  const path = raw.replace(UNRESERVED_ESCAPE, (encoded) => String.fromCharCode(Number.parseInt(encoded.slice(1), 16)));
  const match = path.replace(/;[^/]*/g, '');
  const segments = match.split('/');
  for (let i = 1; i < segments.length; i++) {
    const segment = segments[i];
    if (segment === '.' || segment === '..') return bad('The path contains a dot segment.');
    // Only the last segment may be empty: a path may end in one slash.
    if (segment === '' && (i < segments.length - 1 || !path.endsWith('/')))
      return bad('The path contains an empty segment.');
  }
  if (!hasEncodedSlashes && !path.includes(ENCODED_TWICE))
    return { path, match, query, readings: undefined, hasEncodedSlashes };
  if (segments.length > SEGMENTS_READ_MAX)
    return bad(`The path has more than ${SEGMENTS_READ_MAX} segments beside what is encoded more than once.`);
  const readings = readingsOf(path);
  return typeof readings === 'string' ? bad(readings) : { path, match, query, readings, hasEncodedSlashes };
}

/**
 * Every path that a program can make of one that can be decoded: once or again, `\` read as `/` or not, slashes
 * merged or not. Or why it is refused.
 */
function readingsOf(path: string): readonly string[] | string {
  const readings = new Set<string>();
  let decoded = path;
  for (let i = 0; i <= DECODINGS_MAX; i++) {
    // Programs differ in whether parameters end before or after the slashes are decoded.
    if (decoded.includes(';'))
      return 'The path contains parameters (;…) beside an encoded slash, or what is encoded twice.';
    if (decoded.includes('\0')) return 'The path contains an encoded NUL.';
    for (const slash of [/\//g, /\/|%2f/gi, /\/|%5c/gi, /[/\\]/g, /[/\\]|%2f|%5c/gi]) {
      const split = decoded.replace(slash, '/');
      if (DOT_SEGMENT.test(split)) return 'The path contains a dot segment.';
      readings.add(split).add(split.replace(/\/{2,}/g, '/'));
    }
    const next = decodeOnce(decoded);
    if (next === decoded) return [...readings];
    decoded = next;
  }
  return 'The path is encoded too often.';
}

const DOT_SEGMENT = /(?:^|\/)\.\.?(?:\/|$)/;

const decodeOnce = (text: string): string =>
  text.replace(/%[0-9A-Fa-f]{2}/g, (encoded) => String.fromCharCode(Number.parseInt(encoded.slice(1), 16)));

/** True when a parameter of the query is named `access_token`, in any encoding. */
function namesToken(query: string): boolean {
  if (!query.includes('%') && !query.includes('+') && !query.includes(QUERY_TOKEN)) return false;
  return query
    .slice(1)
    .split(/[&;]/)
    .some((part) => {
      const end = part.indexOf('=');
      const name = end < 0 ? part : part.slice(0, end);
      return decodeOnce(name).trim() === QUERY_TOKEN;
    });
}
