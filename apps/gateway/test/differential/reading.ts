/** One message as a program read it. */
export interface Message {
  /** Method and target of a request, status of a response. */
  readonly start: string;
  /** The content, without framing, in Latin-1. */
  body: string;
  /** The program has seen its end. */
  complete: boolean;
}

/** What a program made of a stream of bytes. */
export interface Reading {
  readonly messages: Message[];
  /**
   * How it went on behind the last message: `refused` as malformed, `waiting` for more bytes, `closed` because a message
   * said so, `upgraded` to another protocol; `cut`: the stream ended within a message.
   */
  end: 'refused' | 'waiting' | 'closed' | 'upgraded' | 'cut';
  /** Why it was refused. */
  why: string;
}

export type Verdict =
  /** Both read the same messages. */
  | 'same'
  /** Ours refused what the other accepts. */
  | 'strict'
  /** The other refused what ours accepts. */
  | 'lax'
  /** Both accept a message and see different ends, contents or start lines: a failure. */
  | 'differs';

export interface Comparison {
  readonly verdict: Verdict;
  readonly why: string;
}

const SAME: Comparison = { verdict: 'same', why: '' };

export const READS_ON = 'ours reads a message where the other waits';

const OTHER_LINE: Comparison = { verdict: 'differs', why: 'another first line' };

const isUpgrade = ({ messages, end }: Reading, i: number): boolean => end === 'upgraded' && i === messages.length - 1;

/**
 * Compares two readings of the same bytes, message by message.
 * @param partial the other reports messages that are not complete
 */
export function compare(ours: Reading, other: Reading, partial = true): Comparison {
  for (let i = 0; ; i++) {
    const mine = ours.messages[i];
    const theirs = other.messages[i];
    const isRefused =
      ours.end === 'refused' && i >= ours.messages.length - (ours.messages.at(-1)?.complete === false ? 1 : 0);
    if (isRefused) {
      const accepts = theirs && (theirs.complete || (other.end !== 'refused' && other.end !== 'cut'));
      return accepts ? { verdict: 'strict', why: ours.why } : SAME;
    }
    if (!mine) {
      if (!theirs || ours.end !== 'waiting') return SAME;
      return { verdict: 'differs', why: 'ours waits for a head where the other reads a message' };
    }
    if (!theirs) {
      if (other.end === 'refused') return mine.complete ? { verdict: 'lax', why: other.why } : SAME;
      if ((other.end === 'waiting' || other.end === 'cut') && mine.complete)
        return { verdict: 'differs', why: READS_ON };
      return SAME;
    }
    // What follows an upgrade is another protocol.
    if (isUpgrade(ours, i) || isUpgrade(other, i)) return mine.start === theirs.start ? SAME : OTHER_LINE;
    if (mine.start !== theirs.start) return OTHER_LINE;
    if (!theirs.complete && other.end === 'refused')
      // What ours has not read to its end can still be refused.
      return mine.complete ? { verdict: 'lax', why: other.why } : SAME;
    if (mine.complete !== theirs.complete)
      return { verdict: 'differs', why: mine.complete ? 'ours ends earlier' : 'the other ends earlier' };
    if (mine.body !== theirs.body && (mine.complete || partial)) return { verdict: 'differs', why: 'other content' };
    if (!mine.complete) return SAME;
  }
}
