import type { LookupResponse } from '@latchkey/contracts';
import { hashOfDigest } from '@latchkey/token-format';
import type { Applied } from './applied.js';
import type { Counters } from './counters.js';
import type { LookupResult } from './evaluate.js';
import type { VerifierLimits } from './limits.js';
import type { Entry, Memory } from './memory.js';
import type { Tickets } from './tickets.js';
import type { Clock, TokenSource } from './types.js';

/** The response can predate an invalidation. */
const POISONED = Symbol('poisoned');
/** The response is from another invalidation log than the memory. */
const OTHER_LOG = Symbol('other log');
type Filled = Entry | null | 'unavailable' | typeof POISONED | typeof OTHER_LOG;

export interface FillsDeps {
  readonly clock: Clock;
  readonly source: TokenSource;
  readonly memory: Memory;
  readonly applied: Applied;
  readonly tickets: Tickets;
  readonly isLeaseHeld: () => boolean;
  /** Resolves when a renewal sent from now on has succeeded or failed. */
  readonly awaitRenewal: () => Promise<void>;
  /** Empties the memory and poisons every fill in flight. */
  readonly reset: () => void;
  readonly limits: VerifierLimits;
  readonly counters: Counters;
}

/** Lookups at the authority: shared while a lease is held, checked for poison, bounded. */
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
   * The state of the token with this hash, for a check that begins now. The response to a lookup of this check's own is
   * always fresh enough for it, unless poisoned. The response to an earlier check's lookup is fresh enough only while a
   * lease is held: then every invalidation confirmed before this check began has been applied here, and poisons it.
   */
  async resolve(hash: string, address: string | undefined): Promise<LookupResult> {
    const { clock, memory, isLeaseHeld, awaitRenewal, limits, counters } = this.#deps;
    for (let attempt = 0; attempt < limits.lookupsPerCheckMax; attempt++) {
      const held = isLeaseHeld();
      const remembered = held ? memory.find(hash, clock.monotonicMs()) : undefined;
      if (remembered !== undefined) return remembered;
      let fill = held ? this.#shared.get(hash) : undefined;
      const joined = fill !== undefined;
      if (joined) counters.fillsShared++;
      else {
        const rejection = this.#rejection(hash, address);
        if (rejection) return rejection;
        fill = this.#start(hash, address);
      }
      const result = await fill!;
      if (result === 'unavailable') return result;
      if (result === OTHER_LOG) await awaitRenewal();
      else if (joined && !isLeaseHeld()) continue;
      // An invalidation applied between the response's arrival and this line counts as well.
      else if (result === null || (result !== POISONED && memory.isAlive(result))) return result;
    }
    return 'unavailable';
  }

  /** Well-formed junk must use neither the capacity reserved for known tokens nor more than its address's share. */
  #rejection(hash: string, address: string | undefined): 'unavailable' | 'rate_limited' | undefined {
    const { memory, limits, counters } = this.#deps;
    const known = memory.isKnown(hash);
    const full = this.#inFlight >= (known ? limits.fillsMax : limits.fillsMax - limits.fillsReservedForKnown);
    const crowded =
      !known && address !== undefined && (this.#unfamiliarByAddress.get(address) ?? 0) >= limits.fillsPerAddressMax;
    if (!full && !crowded) return undefined;
    counters.fillsRefused++;
    return crowded ? 'rate_limited' : 'unavailable';
  }

  #start(hash: string, address: string | undefined): Promise<Filled> {
    const { memory, counters } = this.#deps;
    const by = address !== undefined && !memory.isKnown(hash) ? address : undefined;
    counters.fills++;
    this.#inFlight++;
    if (by !== undefined) this.#unfamiliarByAddress.set(by, (this.#unfamiliarByAddress.get(by) ?? 0) + 1);
    const fill = this.#lookup(hash).finally(() => {
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

  async #lookup(hash: string): Promise<Filled> {
    const { clock, source, memory, applied, tickets, isLeaseHeld, reset, counters } = this.#deps;
    const position = applied.position;
    try {
      const response = await source.lookup(hashOfDigest(hash));
      tickets.add(response);
      if (applied.poisons(position, response)) {
        counters.fillsPoisoned++;
        return POISONED;
      }
      if (isOfAnotherLog(response, applied)) {
        // Either a deposed primary or a promoted one: a renewal shows which. The memory must not mix entries of both.
        counters.fillsOfOtherLog++;
        if (isLeaseHeld()) return OTHER_LOG;
        reset();
      }
      if (response.known && response.token) return memory.remember(hash, response.token);
      memory.rememberMiss(hash, clock.monotonicMs());
      return null;
    } catch {
      counters.fillsFailed++; // an outage proves nothing about the token
      return 'unavailable';
    }
  }
}

const isOfAnotherLog = ({ log }: LookupResponse, { cursor }: Applied): boolean =>
  log !== undefined && log !== '' && cursor !== null && log !== cursor.log;
