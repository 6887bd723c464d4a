import { type Case, requestCase, responseCase } from './grammar.js';
import { llhttpRequests, llhttpResponse } from './llhttp.js';
import { forwardRequests, forwardResponse, readRequests, readResponse } from './ours.js';
import { cutsOf, Random } from './random.js';
import { type Comparison, compare, type Reading } from './reading.js';

export type Kind = 'request' | 'response';

/** One case, read by ours and by llhttp. */
export interface Outcome {
  readonly kind: Kind;
  readonly index: number;
  readonly case: Case;
  readonly ours: Reading;
  readonly comparison: Comparison;
  /** What is wrong with what ours forwards; empty when it is read alike. */
  readonly forwarding: string;
}

export function caseOf(seed: number, kind: Kind, index: number): { made: Case; random: Random } {
  const random = Random.of(seed, kind, index);
  return { made: kind === 'request' ? requestCase(random) : responseCase(random), random };
}

export function runCase(seed: number, kind: Kind, index: number): Outcome {
  const { made, random } = caseOf(seed, kind, index);
  const { bytes, method, minor } = made;
  const cuts = cutsOf(random, bytes.length);
  if (kind === 'request') {
    const ours = readRequests(bytes, cuts);
    const comparison = compare(ours, llhttpRequests(bytes, cutsOf(random, bytes.length)));
    const forwarding = requestsForwarded(ours, bytes, cutsOf(random, bytes.length));
    return { kind, index, case: made, ours, comparison, forwarding };
  }
  const ours = readResponse(bytes, cuts, method);
  const comparison = compare(ours, llhttpResponse(bytes, cutsOf(random, bytes.length), method));
  const forwarding = responseForwarded(ours, bytes, cutsOf(random, bytes.length), method, minor);
  return { kind, index, case: made, ours, comparison, forwarding };
}

/** One is the beginning of the other: how much of a malformed body is read depends on where the stream is split. */
const areOneText = (a: string, b: string): boolean => a.startsWith(b) || b.startsWith(a);

/** Each request goes to the upstream as one message, of the same content. */
function requestsForwarded(ours: Reading, bytes: Buffer, cuts: readonly number[]): string {
  const forwarded = forwardRequests(bytes, cuts);
  for (const [i, message] of ours.messages.entries()) {
    const sent = forwarded[i];
    // A request that is malformed in the first segment is not forwarded at all.
    if (!sent) return message.complete || ours.end === 'waiting' ? `message ${i} was not forwarded` : '';
    const sentBytes = Buffer.from(sent.bytes, 'latin1');
    const read = llhttpRequests(sentBytes, [sentBytes.length]);
    const [got] = read.messages;
    const isKnown = read.end !== 'refused' || read.why !== 'HPE_INVALID_METHOD';
    if (!isKnown) continue;
    if (!got || read.end === 'refused') return `llhttp refuses message ${i} as forwarded: ${read.why}`;
    if (read.messages.length > 1) return `message ${i} is ${read.messages.length} messages as forwarded`;
    if (got.start !== sent.start) return `message ${i} is forwarded as ${got.start}`;
    if (got.complete !== message.complete || sent.complete !== message.complete)
      return `message ${i} is ${message.complete ? 'not ' : ''}complete as forwarded`;
    if (message.complete ? got.body !== message.body : !areOneText(message.body, got.body))
      return `message ${i} has another content as forwarded`;
  }
  return forwarded.length > ours.messages.length ? 'more messages were forwarded than read' : '';
}

/** A response goes to the caller with the same content; one that is not complete is not complete there either. */
function responseForwarded(
  ours: Reading,
  bytes: Buffer,
  cuts: readonly number[],
  method: string,
  minor: number,
): string {
  const forwarded = forwardResponse(bytes, cuts, method, minor);
  const read = llhttpResponse(forwarded.bytes, [forwarded.bytes.length], method, forwarded.ended);
  if (read.end === 'refused') return `llhttp refuses what was forwarded: ${read.why}`;
  const final = ours.messages.findLast(({ start }) => Number(start) >= 200);
  const got = read.messages.findLast(({ start }) => Number(start) >= 200);
  if (ours.end === 'refused' && got?.start === '502') return '';
  if (!final) return got?.start === '502' ? '' : `${got?.start} was forwarded without a response`;
  if (!got) return 'nothing was forwarded';
  // To HTTP/1.0 the end of the connection is all there is.
  const isMarked = minor > 0;
  if (got.start !== final.start && !(got.start === '502' && !final.complete))
    return `${got.start} was forwarded for ${final.start}`;
  if (got.start === '502') return '';
  if (final.complete && !got.complete) return 'not complete as forwarded';
  if (!final.complete && got.complete && isMarked) return 'complete as forwarded';
  if (final.complete ? got.body !== final.body : !areOneText(final.body, got.body))
    return 'another content as forwarded';
  return '';
}
