import type { HeadScan } from './scan.js';

/** Why a head is not well-formed, in words for its sender. */
export interface Malformed {
  readonly malformed: string;
}

export const malformed = (why: string): Malformed => ({ malformed: why });

/** What field lines cannot contain: controls other than the tab (RFC 9110 section 5.5), CR or LF alone (RFC 9112 section 2.2). */
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is refused.
const FORBIDDEN = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n/;

/** Whether text of whole lines has only characters that field lines can contain. */
export const isClean = (text: string): boolean => !FORBIDDEN.test(text);

/**
 * A tab around a value that decides where a message ends or to whom it goes. It is white space (RFC 9110 section 5.5), but
 * some programs take it for a part of the value, which then means nothing to them.
 */
const TABBED_FRAMING = /\r\n(?:content-length|transfer-encoding|connection|host):(?: *\t|[^\r]*\t *\r)/i;

/** Whether a head has such a tab. */
export const hasTabbedFraming = (text: string): boolean => TABBED_FRAMING.test(text);

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

/** Whether a text is a token (RFC 9110 section 5.6.2). */
export const isToken = (text: string): boolean => TOKEN.test(text);

/** The field passes unread. */
export const PASS = 0;
const INVALID = -1;

interface Spelling {
  readonly name: string;
  readonly action: number;
}

/** What to do with fields by name, decided once for each spelling. */
export class FieldTable {
  /** Bounded, because spellings come from outside. */
  readonly #known = new Map<string, Spelling>();
  /** The spellings seen last, by a hash that needs no string. */
  readonly #recent: (Spelling | undefined)[] = new Array(RECENT).fill(undefined);

  /** @param classify an action by name in lower case; {@link PASS}, or a number above it */
  constructor(private readonly classify: (name: string) => number) {}

  /**
   * The action for the name of a field line; negative when it is no valid name.
   * @param at where the line begins
   * @param colon where the name ends
   */
  actionAt(text: string, at: number, colon: number): number {
    if (colon <= at) return INVALID;
    const slot = (text.charCodeAt(at) * 7 + text.charCodeAt(colon - 1) * 31 + (colon - at)) & (RECENT - 1);
    const recent = this.#recent[slot];
    if (recent !== undefined && recent.name.length === colon - at && text.startsWith(recent.name, at))
      return recent.action;
    const spelling = this.#spelling(text.slice(at, colon));
    if (colon - at <= KNOWN_LENGTH_MAX) this.#recent[slot] = spelling;
    return spelling.action;
  }

  #spelling(name: string): Spelling {
    const known = this.#known.get(name);
    if (known) return known;
    // A copy: a slice would keep the whole head in memory.
    const spelling = { name: copyOf(name), action: isToken(name) ? this.classify(name.toLowerCase()) : INVALID };
    if (this.#known.size < KNOWN_MAX && name.length <= KNOWN_LENGTH_MAX) this.#known.set(spelling.name, spelling);
    return spelling;
  }
}

const KNOWN_MAX = 4_000;
const RECENT = 256;
/** Longer names are decided each time. */
const KNOWN_LENGTH_MAX = 64;

const copyOf = (text: string): string => Buffer.from(text, 'latin1').toString('latin1');

/** Takes the fields whose action is not {@link PASS}. */
export interface FieldSink {
  /**
   * @param value without white space around it
   * @returns true when the line passes unchanged
   */
  field(action: number, value: string): boolean;
}

/**
 * Reads the field lines of a head (RFC 9112 section 5), strictly: no folding, no white space before the colon.
 * @param text the head, to the CRLF of its last field
 * @param scan where its lines are
 * @returns the lines that pass, unchanged
 */
export function readFields(text: string, scan: HeadScan, table: FieldTable, sink: FieldSink): string | Malformed {
  const { lines, ends, colons } = scan;
  let at = ends[0]! + 2;
  let passed = '';
  let runStart = at;
  for (let line = 1; line < lines; line++) {
    const end = ends[line]!;
    const colon = colons[line]!;
    if (colon < 0) return malformed('A header line has no colon.');
    const action = table.actionAt(text, at, colon);
    if (action < 0) return malformed('The name of a header contains a character that is not allowed there.');
    if (action !== PASS && !sink.field(action, fieldValue(text, colon + 1, end))) {
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
export function fieldValue(text: string, from: number, to: number): string {
  let start = from;
  let end = to;
  while (start < end && isSpace(text.charCodeAt(start))) start++;
  while (end > start && isSpace(text.charCodeAt(end - 1))) end--;
  return text.slice(start, end);
}

const isSpace = (code: number): boolean => code === SPACE || code === TAB;

/** Drops the lines of the fields that `Connection` lists (RFC 9110 section 7.6.1), but for those named in `kept`. */
export function withoutListed(lines: string, connection: string, kept: ReadonlySet<string>): string {
  // Nearly always.
  if (connection === 'keep-alive' || connection === 'close') return lines;
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
