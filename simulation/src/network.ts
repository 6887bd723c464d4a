import type { Machine } from './machine.js';
import type { Random } from './random.js';
import type { Schedule } from './schedule.js';

/** How a line behaves at the moment: between machines, to Redis, or to PostgreSQL. */
export interface Line {
  /** Nothing passes; a caller notices only by a timeout. */
  cut: boolean;
  /** Of messages, how many are lost. */
  loss: number;
  /** Of messages, how many arrive twice. */
  twice: number;
  /** Longest delay of one message. Delays differ, so messages overtake each other. */
  slowMs: number;
}

const QUICKEST_MS = 0.05;
/** Longest delay on a line without faults. */
const USUAL_MS = 4;

export const goodLine = (): Line => ({ cut: false, loss: 0, twice: 0, slowMs: USUAL_MS });

/** Delay of one message over all the lines it takes, or undefined when it is lost. */
export function passage(random: Random, lines: readonly Line[]): number | undefined {
  if (lines.some((line) => line.cut || random.chance(line.loss))) return undefined;
  const delay = ({ slowMs }: Line) =>
    slowMs > USUAL_MS ? random.float() * slowMs : random.spread(QUICKEST_MS, slowMs);
  return lines.reduce((sum, line) => sum + delay(line), 0);
}

/** A process, Redis or PostgreSQL could not be reached, or did not respond in time. */
export class Unavailable extends Error {}

/**
 * One call over the network. The request or the response may be lost, and the caller gives up after `deadlineMs` of its
 * own clock; the other side may then still be at work on it.
 *
 * @param lines read again for the request and for the response
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
      reject(new Unavailable('deadline exceeded'));
    });
    const respond = (give: () => void) => {
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
        (value) => respond(() => resolve(value)),
        (error: unknown) => respond(() => reject(error)),
      );
    });
  });
}

interface Listener {
  readonly channel: string;
  readonly machine: Machine;
  readonly line: Line;
  readonly onMessage: (text: string) => void;
}

/**
 * Redis as the protocol sees it: something that may pass messages on. It loses, repeats, delays and reorders them as
 * its own line and each listener's are set, and anyone can broadcast anything on it.
 */
export class Redis {
  readonly line: Line = goodLine();
  /** How long a published message is delayed before it is passed on. */
  delayMs: () => number = () => 0;
  /** Called with every published message before any listener receives it. */
  onPublish: (channel: string, text: string) => void = () => undefined;
  readonly #random: Random;
  readonly #schedule: Schedule;
  readonly #listeners = new Set<Listener>();
  /** Recent messages, for repeating one much later. */
  readonly #recent: { channel: string; text: string }[] = [];

  constructor(random: Random, schedule: Schedule) {
    this.#random = random;
    this.#schedule = schedule;
  }

  subscribe(channel: string, machine: Machine, line: Line, onMessage: (text: string) => void): () => void {
    const listener = { channel, machine, line, onMessage };
    this.#listeners.add(listener);
    // The next process has subscriptions of its own.
    const over = machine.onDeath(() => this.#listeners.delete(listener));
    return () => {
      over();
      this.#listeners.delete(listener);
    };
  }

  /** Rejects when the message certainly did not reach Redis; a fulfilment promises nothing. */
  async publish(channel: string, line: Line, text: string): Promise<void> {
    if (line.cut || this.line.cut) throw new Unavailable('redis is unavailable');
    if (this.#random.chance(line.loss)) return;
    this.#recent.push({ channel, text });
    if (this.#recent.length > 200) this.#recent.splice(0, 100);
    this.onPublish(channel, text);
    const ms = this.delayMs();
    if (ms > 0) this.#schedule.after(ms, () => this.broadcast(channel, text));
    else this.broadcast(channel, text);
  }

  /** Passes a text on to all listeners of the channel. */
  broadcast(channel: string, text: string): void {
    const copies = this.#random.chance(this.line.twice) ? 2 : 1;
    for (const listener of this.#listeners) {
      if (listener.channel !== channel) continue;
      for (let copy = 0; copy < copies; copy++) {
        const ms = passage(this.#random, [this.line, listener.line]);
        if (ms !== undefined)
          listener.machine.deliverAfter(ms, () => this.#listeners.has(listener) && listener.onMessage(text));
      }
    }
  }

  /** Broadcasts a recent message again. */
  repeat(): void {
    if (this.#recent.length === 0) return;
    const { channel, text } = this.#random.pick(this.#recent);
    this.#schedule.after(0, () => this.broadcast(channel, text));
  }
}
