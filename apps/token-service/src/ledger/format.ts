import { createHmac, timingSafeEqual } from 'node:crypto';

/**
 * The files of a ledger. A ledger is a folder; each process appends to a stream of its own in it, in segments. Every line is
 * authenticated by HMAC-SHA-256, truncated to 128 bits (RFC 2104, section 5), under a key that is not in the folder, and
 * contains the authentication of the line before it, so that no line can be changed, removed, inserted or moved.
 *
 * - `ledger`: one line, the folder's identity.
 * - `<stream>.<segment>`: a head, then entries.
 * - `<stream>.state`: one line, how far the stream reached when it was last alive. It is replaced, not appended to.
 */
export const VERSION = 1;

/** How far a stream reaches: the number of its entries, and the authentication of the last line. */
export interface Place {
  readonly sequence: number;
  readonly mac: string;
}

/** The identity of a ledger. */
export interface Identity {
  readonly version: number;
  /** A UUID. */
  readonly ledger: string;
  /** ISO 8601. */
  readonly begunAt: string;
  /** Of the file itself: a copied ledger may be an older one. Empty: of an imported one; `distrusted`: of one that may lack the last. */
  readonly inode: string;
  /** Set by an import: the operator has stated that nothing was written after the copy was made. */
  readonly isComplete: boolean;
}

/** The first line of a segment. */
export interface Head {
  readonly version: number;
  readonly ledger: string;
  readonly stream: string;
  readonly segment: number;
  /** The end of the segment before. */
  readonly after: Place;
  /** ISO 8601. */
  readonly at: string;
  /** In the first segment: how far the other streams of the folder reached then. */
  readonly others: Readonly<Record<string, StreamEnd>>;
}

export interface StreamEnd extends Place {
  /** When it was last alive, ISO 8601. */
  readonly at: string;
}

/** How far a stream reached when it was last alive. All times are the database's, ISO 8601. */
export interface State extends StreamEnd {
  readonly stream: string;
  readonly begunAt: string;
  /**
   * When it was last alive in a settled history: that it was alive in one that was not shows nothing about what that lacks.
   * Null: never.
   */
  readonly settledAt: string | null;
  /** Other ledgers of the same database that were alive then. */
  readonly peers: readonly string[];
  /**
   * Streams last alive before this, in milliseconds since 1970, may have been removed: what LEDGER_RETENTION_DAYS was then.
   * Absent: none were.
   */
  readonly prunedBefore?: number;
  /** The database, whose dumps and copies are the same; absent: of before version 0.2. */
  readonly database?: string;
}

/** An entry with its place. */
export interface Placed<Entry> extends Place {
  readonly entry: Entry;
}

/** What is wrong with a ledger. */
export const LEDGER_FAULTS = [
  'unreadable',
  'foreign',
  'changed',
  'cut',
  'stream_missing',
  'segment_missing',
  'state_missing',
  'mark',
  'uncertain',
] as const;
export type LedgerFaultCode = (typeof LEDGER_FAULTS)[number];

/** A ledger is not what was written. The message says what, where, and what that means. */
export class LedgerFault extends Error {
  override name = 'LedgerFault';
  constructor(
    readonly code: LedgerFaultCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** The key that LEDGER_KEY stands for. */
export const ledgerKey = (secret: string): string =>
  createHmac('sha256', secret).update('latchkey ledger').digest('hex');

const MAC_BYTES = 16;
export const NO_PLACE: Place = { sequence: 0, mac: '' };

const authenticate = (key: Buffer, purpose: string, text: string): string =>
  createHmac('sha256', key).update(`${purpose}\n${text}`).digest().subarray(0, MAC_BYTES).toString('base64url');

function isAuthentic(key: Buffer, purpose: string, text: string, mac: string): boolean {
  const [given, right] = [mac, authenticate(key, purpose, text)].map((one) => Buffer.from(one));
  return given!.length === right!.length && timingSafeEqual(given!, right!);
}

/** A file of one line. @param purpose of the line; a line of another purpose is not accepted in its place */
export function formatLine(key: Buffer, purpose: string, value: unknown): string {
  const json = JSON.stringify(value);
  return `${authenticate(key, purpose, json)} ${json}\n`;
}

/** @param where the file, for the message @throws LedgerFault `foreign` */
export function readLine<Value>(key: Buffer, purpose: string, text: string, where: string): Value {
  const at = text.indexOf(' ');
  const json = text.slice(at + 1).trimEnd();
  if (at < 0 || !isAuthentic(key, purpose, json, text.slice(0, at)))
    throw new LedgerFault('foreign', `${where} was changed, or LEDGER_KEY is not the key that it was written with`);
  return JSON.parse(json) as Value;
}

const HEAD = 'latchkey ledger segment';
const entryPurpose = (stream: string, sequence: number, previous: string) =>
  `latchkey ledger entry ${stream} ${sequence} ${previous}`;

/** The first line of a segment, and the place behind it. */
export function formatHead(key: Buffer, head: Head): { line: string; place: Place } {
  const line = formatLine(key, HEAD, head);
  return { line, place: { sequence: head.after.sequence, mac: line.slice(0, line.indexOf(' ')) } };
}

/** The lines of entries behind a place, and the place behind them. */
export function formatEntries(
  key: Buffer,
  stream: string,
  after: Place,
  entries: readonly unknown[],
): { lines: string; place: Place } {
  let { sequence, mac } = after;
  let lines = '';
  for (const entry of entries) {
    const json = JSON.stringify(entry);
    sequence++;
    mac = authenticate(key, entryPurpose(stream, sequence, mac), json);
    lines += `${sequence} ${mac} ${json}\n`;
  }
  return { lines, place: { sequence, mac } };
}

export interface Segment<Entry> {
  readonly head: Head;
  /** Behind its head. */
  readonly opening: Place;
  readonly entries: readonly Placed<Entry>[];
  /** Behind its last entry. */
  readonly end: Place;
  /** The last line is incomplete: its write was interrupted, so it was never acknowledged. */
  readonly isTorn: boolean;
}

/**
 * Reads and authenticates a segment.
 * @param where the file, for messages
 * @throws LedgerFault `foreign` for its head, `changed` for an entry
 */
export function readSegment<Entry>(key: Buffer, text: string, where: string): Segment<Entry> {
  const lines = text.split('\n');
  const isTorn = lines.pop() !== '';
  const [first = '', ...others] = lines;
  const head = readLine<Head>(key, HEAD, first, where);
  const opening = { sequence: head.after.sequence, mac: first.slice(0, first.indexOf(' ')) };
  let end: Place = opening;
  const entries = others.map((line, i): Placed<Entry> => {
    const [number = '', mac = ''] = line.split(' ', 2);
    const json = line.slice(number.length + mac.length + 2);
    const sequence = end.sequence + 1;
    if (number !== String(sequence) || !isAuthentic(key, entryPurpose(head.stream, sequence, end.mac), json, mac))
      throw new LedgerFault(
        'changed',
        `line ${i + 2} of ${where} is not what was written there: lines were changed, removed, inserted or moved`,
      );
    end = { sequence, mac };
    return { ...end, entry: JSON.parse(json) as Entry };
  });
  return { head, opening, entries, end, isTorn };
}
