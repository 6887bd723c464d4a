/** A request target (RFC 9112 section 3.2.1) that every program behind the gateway reads alike. */
export interface Target {
  /** What is forwarded: letters, digits, `-`, `.`, `_` and `~` decoded, nothing else changed. */
  readonly path: string;
  /** What routes are matched against: `path` without `;parameters`, which some servers drop. */
  readonly match: string;
  /** With its `?`; empty without one. */
  readonly query: string;
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

const bad = (detail: string): BadTarget => ({ code: 'invalid_request', detail });

/**
 * Parses a request target in origin form. Refused is what programs read differently: dot segments, in any encoding,
 * backslashes, NUL, empty segments, encoded slashes and backslashes, broken escapes; and a token in the query
 * (RFC 6750 section 5.3), which would be logged.
 */
export function readTarget(raw: string): Target | BadTarget {
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
  return PLAIN.test(rawPath) ? { path: rawPath, match: rawPath, query } : readUnusualPath(rawPath, query);
}

function readUnusualPath(raw: string, query: string): Target | BadTarget {
  if (raw[0] !== '/') return bad('The request target must begin with "/"; other forms are not supported.');
  if (OTHER_CHARACTER.test(raw)) return bad('The path contains a character that must be percent-encoded.');
  if (raw.includes('\\') || /%5c/i.test(raw)) return bad('The path contains a backslash.');
  if (BAD_ESCAPE.test(raw)) return bad('The path contains a "%" that is not followed by two hexadecimal digits.');
  if (/%00/.test(raw)) return bad('The path contains an encoded NUL.');
  if (/%2f/i.test(raw)) return bad('The path contains an encoded slash.');
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
  return { path, match, query };
}

/** True when a parameter of the query is named `access_token`, in any encoding. */
function namesToken(query: string): boolean {
  if (!query.includes('%') && !query.includes('+') && !query.includes(QUERY_TOKEN)) return false;
  return query
    .slice(1)
    .split(/[&;]/)
    .some((part) => {
      const end = part.indexOf('=');
      const name = end < 0 ? part : part.slice(0, end);
      const decoded = name.replace(/%[0-9A-Fa-f]{2}/g, (e) => String.fromCharCode(Number.parseInt(e.slice(1), 16)));
      return decoded.trim() === QUERY_TOKEN;
    });
}
