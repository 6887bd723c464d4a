import type { Machine } from './machine.js';
import type { Random } from './random.js';
import type { Schedule } from './schedule.js';

/** How a line behaves at the moment: between machines, to Redis, or to PostgreSQL. */
export interface Line {
  /** Nothing passes; whoever asks learns it only by waiting. */
  cut: boolean;
  /** Of messages, how many are lost. */
  loss: number;
  /** Of messages, how many arrive twice. */
  twice: number;
  /** Longest delay of one message. Delays differ, so messages overtake each other. */
  slowMs: number;
}

const QUICKEST_MS = 0.05;
/** Longest delay on a line that is well. */
const USUAL_MS = 4;

export const goodLine = (): Line => ({ cut: false, loss: 0, twice: 0, slowMs: USUAL_MS });

/** Delay of one message over all the lines it takes, or undefined when it is lost. */
export function passage(random: Random, lines: readonly Line[]): number | undefined {
  if (lines.some((line) => line.cut || random.chance(line.loss))) return undefined;
  const delay = ({ slowMs }: Line) =>
    slowMs > USUAL_MS ? random.float() * slowMs : random.spread(QUICKEST_MS, slowMs);
  return lines.reduce((sum, line) => sum + delay(line), 0);
}

export class Away extends Error {}

/**
 * One call over the network. The question may be lost, the answer may be, and the caller gives up after `deadlineMs` of
 * its own clock; the other side may then still be at work on it.
 *
 * @param lines read again for the question and for the answer
 */
export function call<T>(
  random: Random,
  from: Machine,
  to: Machine,
  lines: readonly Line[],
  deadlineMs: number,
  handle: () => Promise<T>,
): Promise<T> {
  return new Promise((resolve, reject) => {
    let over = false;
    const deliver = from.address();
    const cancel = from.after(deadlineMs, () => {
      over = true;
      reject(new Away('deadline exceeded'));
    });
    const answer = (give: () => void) => {
      const ms = passage(random, lines);
      if (ms === undefined) return;
      deliver(ms, () => {
        if (over) return;
        cancel();
        give();
      });
    };
    const ms = passage(random, lines);
    if (ms === undefined) return;
    to.deliverAfter(ms, () => {
      handle().then(
        (value) => answer(() => resolve(value)),
        (error: unknown) => answer(() => reject(error)),
      );
    });
  });
}

interface Listener {
  readonly channel: string;
  readonly machine: Machine;
  readonly line: Line;
  readonly hear: (text: string) => void;
}

/**
 * Redis as the protocol sees it: something that may pass messages on. It loses, repeats, delays and reorders them as
 * its own line and each listener's say, and somebody may say anything on it.
 */
export class Redis {
  readonly line: Line = goodLine();
  /** How long a message that somebody publishes is kept back before it is passed on. */
  keepBackMs: () => number = () => 0;
  /** Told of every message before anybody else hears it. */
  spy: (channel: string, text: string) => void = () => undefined;
  readonly #random: Random;
  readonly #schedule: Schedule;
  readonly #listeners = new Set<Listener>();
  /** What was said lately, for repeating it much later. */
  readonly #said: { channel: string; text: string }[] = [];

  constructor(random: Random, schedule: Schedule) {
    this.#random = random;
    this.#schedule = schedule;
  }

  subscribe(channel: string, machine: Machine, line: Line, hear: (text: string) => void): () => void {
    const listener = { channel, machine, line, hear };
    this.#listeners.add(listener);
    // What starts next in its place has subscriptions of its own.
    const over = machine.onDeath(() => this.#listeners.delete(listener));
    return () => {
      over();
      this.#listeners.delete(listener);
    };
  }

  /** Rejects when the message certainly did not reach Redis; a fulfilment promises nothing. */
  async publish(channel: string, line: Line, text: string): Promise<void> {
    if (line.cut || this.line.cut) throw new Away('redis is away');
    if (this.#random.chance(line.loss)) return;
    this.#said.push({ channel, text });
    if (this.#said.length > 200) this.#said.splice(0, 100);
    this.spy(channel, text);
    const ms = this.keepBackMs();
    if (ms > 0) this.#schedule.after(ms, () => this.say(channel, text));
    else this.say(channel, text);
  }

  /** Passes a text on to all who listen, whoever says it. */
  say(channel: string, text: string): void {
    const copies = this.#random.chance(this.line.twice) ? 2 : 1;
    for (const listener of this.#listeners) {
      if (listener.channel !== channel) continue;
      for (let copy = 0; copy < copies; copy++) {
        const ms = passage(this.#random, [this.line, listener.line]);
        if (ms !== undefined)
          listener.machine.deliverAfter(ms, () => this.#listeners.has(listener) && listener.hear(text));
      }
    }
  }

  /** Says again something that was said before. */
  repeat(): void {
    if (this.#said.length === 0) return;
    const { channel, text } = this.#random.pick(this.#said);
    this.#schedule.after(0, () => this.say(channel, text));
  }
}
