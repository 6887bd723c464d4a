/** Most fields of a message. */
export const FIELDS_MAX = 200;

/** Why a head is not well-formed, in words for whoever sent it. */
export interface Malformed {
  readonly malformed: string;
  /** There are more fields than {@link FIELDS_MAX}. */
  readonly tooMany?: true;
}

export const malformed = (why: string): Malformed => ({ malformed: why });

/** What a head cannot contain: controls other than the tab (RFC 9110 section 5.5), CR or LF alone (RFC 9112 section 2.2). */
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is refused.
const FORBIDDEN = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n/;

/** Whether text of whole lines has only characters that a head can contain. */
export const isClean = (text: string): boolean => !FORBIDDEN.test(text);

/**
 * A tab around a value that decides where a message ends or to whom it goes. It is white space (RFC 9110 section 5.5), but
 * some programs take it for a part of the value, which then means nothing to them.
 */
const TABBED_FRAMING = /\r\n(?:content-length|transfer-encoding|connection|host):(?: *\t|[^\r]*\t *\r)/i;

/** Whether a head has such a tab. */
export const hasTabbedFraming = (text: string): boolean => text.includes('\t') && TABBED_FRAMING.test(text);

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

/** Whether a text is a token (RFC 9110 section 5.6.2). */
export const isToken = (text: string): boolean => TOKEN.test(text);

/** The field passes unread. */
export const PASS = 0;
const INVALID = -1;

/** What to do with fields by name, decided once for each spelling. */
export class FieldTable {
  /** Bounded, because spellings come from outside. */
  readonly #known = new Map<string, number>();

  /** @param classify an action by name in lower case; {@link PASS}, or a number above it */
  constructor(private readonly classify: (name: string) => number) {}

  /** The action for a name; negative when it is no valid name. */
  actionOf(name: string): number {
    const known = this.#known.get(name);
    if (known !== undefined) return known;
    const action = isToken(name) ? this.classify(name.toLowerCase()) : INVALID;
    // A copy: a slice would keep the whole head in memory.
    if (this.#known.size < KNOWN_MAX && name.length <= KNOWN_LENGTH_MAX) this.#known.set(copyOf(name), action);
    return action;
  }
}

const KNOWN_MAX = 4_000;
/** Longer names are decided each time. */
const KNOWN_LENGTH_MAX = 64;

const copyOf = (text: string): string => Buffer.from(text, 'latin1').toString('latin1');

/** Takes the fields whose action is not {@link PASS}. */
export interface FieldSink {
  /**
   * @param value without white space around it
   * @returns true when the line passes unchanged
   */
  field(action: number, value: string, name: string): boolean;
}

/**
 * Reads the field lines of a head (RFC 9112 section 5), strictly: no folding, no white space before the colon.
 * @param text the head, checked with {@link isClean}, to the CRLF of its last field
 * @param at where the first field line begins
 * @returns the lines that pass, unchanged
 */
export function readFields(text: string, at: number, table: FieldTable, sink: FieldSink): string | Malformed {
  let passed = '';
  let runStart = at;
  let count = 0;
  while (at < text.length) {
    const end = text.indexOf('\r\n', at);
    const colon = text.indexOf(':', at);
    if (colon < 0 || colon > end) return malformed('A header line has no colon.');
    if (++count > FIELDS_MAX) return { malformed: `A message can have at most ${FIELDS_MAX} headers.`, tooMany: true };
    const name = text.slice(at, colon);
    const action = table.actionOf(name);
    if (action < 0) return malformed('The name of a header contains a character that is not allowed there.');
    if (action !== PASS && !sink.field(action, valueOf(text, colon + 1, end), name)) {
      if (runStart < at) passed += text.slice(runStart, at);
      runStart = end + 2;
    }
    at = end + 2;
  }
  return runStart < at ? passed + text.slice(runStart, at) : passed;
}

const SPACE = 0x20;
const TAB = 0x09;

/** A field's value without the white space around it: spaces and tabs, no others. */
export function valueOf(text: string, start: number, end: number): string {
  while (start < end && isSpace(text.charCodeAt(start))) start++;
  while (end > start && isSpace(text.charCodeAt(end - 1))) end--;
  return text.slice(start, end);
}

const isSpace = (code: number): boolean => code === SPACE || code === TAB;

/** Drops the lines of the fields that `Connection` lists (RFC 9110 section 7.6.1), but for those named in `kept`. */
export function withoutListed(lines: string, connection: string, kept: ReadonlySet<string>): string {
  const names = new Set(
    connection
      .toLowerCase()
      .split(',')
      .map((name) => name.trim())
      .filter((name) => name !== '' && !kept.has(name)),
  );
  if (names.size === 0) return lines;
  return lines
    .split(/(?<=\r\n)/)
    .filter((line) => !names.has(line.slice(0, line.indexOf(':')).toLowerCase()))
    .join('');
}

/** Whether a comma-separated list contains a word, in any case. */
export function lists(value: string, word: string): boolean {
  if (value.length === word.length) return value.toLowerCase() === word;
  return value.includes(',') && value.split(',').some((part) => part.trim().toLowerCase() === word);
}

/** The bytes of a body by Content-Length (RFC 9112 section 6.3); -1 when it is not a number that can be counted. */
export function lengthOf(value: string): number {
  return /^\d{1,15}$/.test(value) ? Number(value) : -1;
}
