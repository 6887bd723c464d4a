import type { LookupResponse } from '@latchkey/contracts';
import { hashOfDigest } from '@latchkey/token-format';
import type { Applied } from './applied.js';
import type { Counters } from './counters.js';
import type { Answer } from './evaluate.js';
import type { VerifierLimits } from './limits.js';
import type { Entry, Memory } from './memory.js';
import type { Tickets } from './tickets.js';
import type { Clock, TokenSource } from './types.js';

/** The answer may predate an invalidation. */
const POISONED = Symbol('poisoned');
/** The answer is of another history than what is remembered. */
const OTHER_LOG = Symbol('other log');
type Filled = Entry | null | 'unavailable' | typeof POISONED | typeof OTHER_LOG;

export interface FillsDeps {
  readonly clock: Clock;
  readonly source: TokenSource;
  readonly memory: Memory;
  readonly applied: Applied;
  readonly tickets: Tickets;
  readonly isLeaseHeld: () => boolean;
  /** Resolves when a renewal sent from now on has ended. */
  readonly renewed: () => Promise<void>;
  /** Empties the memory and poisons every fill in flight. */
  readonly reset: () => void;
  readonly limits: VerifierLimits;
  readonly counters: Counters;
}

/** Questions to the authority: shared while a lease is held, judged for poison, bounded. */
export class Fills {
  readonly #deps: FillsDeps;
  readonly #shared = new Map<string, Promise<Filled>>();
  readonly #unfamiliarByAddress = new Map<string, number>();
  #inFlight = 0;

  constructor(deps: FillsDeps) {
    this.#deps = deps;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  /**
   * What is known under this hash in a check that begins now. An answer to a question of this check's own is always
   * fresh enough for it, unless poisoned. An answer to a question that another check asked before is so only while a
   * lease is held: then whatever was confirmed before this check began has been applied here, and has poisoned it.
   */
  async resolve(hash: string, address: string | undefined): Promise<Answer> {
    const { clock, memory, isLeaseHeld, renewed, limits, counters } = this.#deps;
    for (let asked = 0; asked < limits.questionsPerCheckMax; asked++) {
      const held = isLeaseHeld();
      const remembered = held ? memory.find(hash, clock.monotonicMs()) : undefined;
      if (remembered !== undefined) return remembered;
      let fill = held ? this.#shared.get(hash) : undefined;
      const joined = fill !== undefined;
      if (joined) counters.fillsShared++;
      else {
        const refusal = this.#refusal(hash, address);
        if (refusal) return refusal;
        fill = this.#ask(hash, address);
      }
      const answer = await fill!;
      if (answer === 'unavailable') return answer;
      if (answer === OTHER_LOG) await renewed();
      else if (joined && !isLeaseHeld()) continue;
      // An invalidation applied between the answer's arrival and this line counts as well.
      else if (answer === null || (answer !== POISONED && memory.isAlive(answer))) return answer;
    }
    return 'unavailable';
  }

  /** Well-formed junk may fill neither the room kept for known tokens nor more than one address's share. */
  #refusal(hash: string, address: string | undefined): 'unavailable' | 'rate_limited' | undefined {
    const { memory, limits, counters } = this.#deps;
    const known = memory.isKnown(hash);
    const full = this.#inFlight >= (known ? limits.fillsMax : limits.fillsMax - limits.fillsReservedForKnown);
    const crowded =
      !known && address !== undefined && (this.#unfamiliarByAddress.get(address) ?? 0) >= limits.fillsPerAddressMax;
    if (!full && !crowded) return undefined;
    counters.fillsRefused++;
    return crowded ? 'rate_limited' : 'unavailable';
  }

  #ask(hash: string, address: string | undefined): Promise<Filled> {
    const { memory, counters } = this.#deps;
    const by = address !== undefined && !memory.isKnown(hash) ? address : undefined;
    counters.fills++;
    this.#inFlight++;
    if (by !== undefined) this.#unfamiliarByAddress.set(by, (this.#unfamiliarByAddress.get(by) ?? 0) + 1);
    const fill = this.#question(hash).finally(() => {
      this.#inFlight--;
      if (this.#shared.get(hash) === fill) this.#shared.delete(hash);
      if (by === undefined) return;
      const left = this.#unfamiliarByAddress.get(by)! - 1;
      if (left > 0) this.#unfamiliarByAddress.set(by, left);
      else this.#unfamiliarByAddress.delete(by);
    });
    this.#shared.set(hash, fill);
    return fill;
  }

  async #question(hash: string): Promise<Filled> {
    const { clock, source, memory, applied, tickets, isLeaseHeld, reset, counters } = this.#deps;
    const position = applied.position;
    try {
      const response = await source.lookup(hashOfDigest(hash));
      tickets.keep(response);
      if (applied.poisons(position, response)) {
        counters.fillsPoisoned++;
        return POISONED;
      }
      if (isOfAnotherLog(response, applied)) {
        // Either a primary that has been deposed, or one that took over: a renewal tells. What is remembered of the one
        // must not stand beside the other's.
        counters.fillsOfOtherLog++;
        if (isLeaseHeld()) return OTHER_LOG;
        reset();
      }
      if (response.known && response.token) return memory.remember(hash, response.token);
      memory.rememberMiss(hash, clock.monotonicMs());
      return null;
    } catch {
      counters.fillsFailed++; // says nothing about the token
      return 'unavailable';
    }
  }
}

const isOfAnotherLog = ({ log }: LookupResponse, { cursor }: Applied): boolean =>
  log !== undefined && log !== '' && cursor !== null && log !== cursor.log;
