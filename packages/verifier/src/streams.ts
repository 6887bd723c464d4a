import type { DenialReason, Invalidation } from '@latchkey/contracts';
import type { Counters } from './counters.js';
import { evaluate, type LookupResult } from './evaluate.js';
import type { VerifierLimits } from './limits.js';
import type { Entry, Memory } from './memory.js';
import type { Moment, Timekeeper } from './time.js';
import type { Clock, Requirement, Stream } from './types.js';

/** Longest time between two sweeps for expired tokens and an expired lease, whatever the clocks do. */
const SWEEP_MS = 1_000;
/** Assumed length of a lease until one is granted. */
const LEASE_MS_ASSUMED = 10_000;

export interface StreamsDeps {
  readonly clock: Clock;
  readonly time: Timekeeper;
  readonly memory: Memory;
  readonly lease: {
    held(): boolean;
    readonly lengthMs: number | undefined;
    readonly expiry: Moment | undefined;
  };
  readonly resolve: (hash: string, address: string | undefined) => Promise<LookupResult>;
  readonly limits: VerifierLimits;
  readonly counters: Counters;
}

interface Watch {
  readonly hash: string;
  readonly requirement: Requirement;
  readonly stream: Stream;
  /** The token that last allowed the stream; undefined until its first check here. */
  entry: Entry | undefined;
  checking: boolean;
  /** A reset has dropped its token from memory, and the stream has not been checked since. */
  stale: boolean;
  /** Since when it has been covered neither by a lease nor by a check of its own. */
  uncovered: Moment | undefined;
  /** Cancels the deadline of an urgent check. */
  cancelDeadline: (() => void) | undefined;
}

/** Open streams by token, cut when the token is no longer accepted. */
export class Streams {
  readonly #deps: StreamsDeps;
  readonly #watches = new Set<Watch>();
  /** Streams by every id that an invalidation can name. */
  readonly #bySubject = new Map<string, Set<Watch>>();
  #cancelSweep: (() => void) | undefined;
  #sweepAtMs = 0;

  constructor(deps: StreamsDeps) {
    this.#deps = deps;
  }

  get size(): number {
    return this.#watches.size;
  }

  /** Watches a stream from now on. Returns a function that stops watching, without a cut. */
  open(hash: string, requirement: Requirement, stream: Stream): () => void {
    const { clock, memory, lease, limits, counters } = this.#deps;
    const watch: Watch = {
      hash,
      requirement,
      stream,
      entry: undefined,
      checking: false,
      stale: false,
      uncovered: undefined,
      cancelDeadline: undefined,
    };
    if (this.#watches.size >= limits.streamsMax) {
      counters.streamsRefused++;
      this.#callCut(watch, 'unavailable');
      return () => undefined;
    }
    this.#watches.add(watch);
    const remembered = lease.held() ? memory.find(hash, clock.monotonicMs()) : undefined;
    if (remembered) this.#applyResult(watch, remembered);
    else this.#recheck(watch, true);
    return () => this.#close(watch);
  }

  /** Cuts at once, or checks again, the streams that the invalidation affects. Call after the memory has applied it. */
  apply({ kind, subject, cut }: Invalidation): void {
    if (kind === 'misses') return;
    const touched = kind === 'everything' ? this.#watches : this.#bySubject.get(subject);
    for (const watch of [...(touched ?? [])]) {
      if (cut) this.#cut(watch, 'revoked');
      else this.#recheck(watch, true);
    }
    if (!cut) return;
    // A stream whose token is not known yet can be affected, and the acknowledgement does not wait.
    for (const watch of this.#watches) if (!watch.entry) this.#cut(watch, 'unavailable');
  }

  /** The memory was emptied: checks every stream again, before the next cursor is sent. */
  reset(): void {
    for (const watch of this.#watches) watch.stale = true;
    this.#sweep();
  }

  /** Entries were dropped: checks the streams that they allowed again, before the next cursor is sent. */
  recheckDropped(): void {
    const { memory } = this.#deps;
    for (const watch of this.#watches) if (watch.entry && !memory.isAlive(watch.entry)) watch.stale = true;
    this.#sweep();
  }

  /**
   * Applies an invalidation that a reset has covered: cuts streams not checked since the reset, and those whose token is
   * not known yet, before the acknowledgement.
   */
  applyOld({ kind, subject, cut }: Invalidation): void {
    if (!cut) return;
    const touched = kind === 'everything' ? this.#watches : this.#bySubject.get(subject);
    for (const watch of [...this.#watches]) {
      if (!watch.entry || (watch.stale && touched?.has(watch))) this.#cut(watch, 'unavailable');
    }
  }

  /** Cuts streams not checked since a reset: call before a cursor is sent, which confirms for streams as well. */
  cutStale(): void {
    for (const watch of [...this.#watches]) if (watch.stale) this.#cut(watch, 'unavailable');
  }

  cutAll(reason: DenialReason): void {
    for (const watch of [...this.#watches]) this.#cut(watch, reason);
  }

  /** Applies the result of a check to a stream. */
  #applyResult(watch: Watch, found: Entry | null): void {
    const { clock, memory } = this.#deps;
    const verdict = evaluate(found, watch.requirement, clock.wallMs());
    if (found === null || !verdict.allowed) {
      this.#cut(watch, verdict.allowed ? 'unknown' : verdict.reason);
      return;
    }
    this.#detach(watch);
    watch.stale = false;
    watch.entry = found;
    for (const subject of subjectsOf(found)) {
      const watches = this.#bySubject.get(subject);
      if (watches) watches.add(watch);
      else this.#bySubject.set(subject, new Set([watch]));
    }
    if (memory.isAlive(found)) this.#sweepBefore(found.expiresAtMs);
    else this.#recheck(watch, true);
  }

  /** Checks again. An urgent check that does not allow the stream within `recheckMs` cuts it. */
  #recheck(watch: Watch, urgent: boolean): void {
    const { clock, time, lease, resolve, limits } = this.#deps;
    if (urgent && !watch.cancelDeadline) {
      watch.cancelDeadline = clock.after(limits.recheckMs, () => this.#cut(watch, 'unavailable'));
    }
    if (watch.checking) return;
    watch.checking = true;
    const sentAt = time.note();
    void resolve(watch.hash, watch.requirement.ip).then((result) => {
      if (!this.#watches.has(watch)) return;
      watch.checking = false;
      if (typeof result === 'string') {
        if (watch.cancelDeadline) this.#cut(watch, 'unavailable');
        else this.#scheduleIn(SWEEP_MS);
        return;
      }
      watch.cancelDeadline?.();
      watch.cancelDeadline = undefined;
      watch.uncovered = lease.held() ? undefined : sentAt;
      this.#applyResult(watch, result);
    });
  }

  #sweep(): void {
    const { clock, memory, lease } = this.#deps;
    const wallMs = clock.wallMs();
    const held = lease.held();
    const leaseMs = lease.lengthMs ?? LEASE_MS_ASSUMED;
    let nextMs = Math.min(SWEEP_MS, leaseMs / 4);
    for (const watch of [...this.#watches]) {
      const { entry } = watch;
      if (entry && entry.expiresAtMs > 0) {
        if (wallMs >= entry.expiresAtMs) {
          this.#cut(watch, 'expired');
          continue;
        }
        nextMs = Math.min(nextMs, entry.expiresAtMs - wallMs);
      }
      if (held && entry && memory.isAlive(entry)) watch.uncovered = undefined;
      else nextMs = Math.min(nextMs, this.#cover(watch, held, leaseMs));
    }
    this.#cancelSweep?.();
    this.#cancelSweep = undefined;
    if (this.#watches.size > 0) this.#scheduleIn(nextMs);
  }

  /**
   * Without a lease a stream is checked at once and then every third of a lease; the last check ends within one lease.
   * Returns the milliseconds until the last check.
   */
  #cover(watch: Watch, held: boolean, leaseMs: number): number {
    const { time, lease, limits } = this.#deps;
    const first = watch.uncovered === undefined;
    watch.uncovered ??= (held ? undefined : lease.expiry) ?? time.note();
    const uncoveredMs = time.steadyMs(watch.uncovered);
    const lastMs = leaseMs - limits.recheckMs - uncoveredMs;
    if (first || uncoveredMs >= leaseMs / 3 || lastMs <= 0) this.#recheck(watch, lastMs <= 0);
    return lastMs > 0 ? lastMs : SWEEP_MS;
  }

  #sweepBefore(expiresAtMs: number): void {
    const { clock, lease } = this.#deps;
    const leftMs = expiresAtMs > 0 ? expiresAtMs - clock.wallMs() : SWEEP_MS;
    this.#scheduleIn(Math.max(0, Math.min(leftMs, SWEEP_MS, (lease.lengthMs ?? LEASE_MS_ASSUMED) / 4)));
  }

  #scheduleIn(ms: number): void {
    const { clock } = this.#deps;
    const atMs = clock.monotonicMs() + ms;
    if (this.#cancelSweep && this.#sweepAtMs <= atMs) return;
    this.#cancelSweep?.();
    this.#sweepAtMs = atMs;
    this.#cancelSweep = clock.after(ms, () => {
      this.#cancelSweep = undefined;
      this.#sweep();
    });
  }

  #cut(watch: Watch, reason: DenialReason): void {
    if (!this.#close(watch)) return;
    this.#deps.counters.streamsCut++;
    this.#callCut(watch, reason);
  }

  #callCut(watch: Watch, reason: DenialReason): void {
    try {
      watch.stream.cut(reason);
    } catch {
      this.#deps.counters.streamCutsFailed++; // one failing stream must not keep the others open
    }
  }

  #close(watch: Watch): boolean {
    if (!this.#watches.delete(watch)) return false;
    watch.cancelDeadline?.();
    this.#detach(watch);
    if (this.#watches.size === 0) {
      this.#cancelSweep?.();
      this.#cancelSweep = undefined;
    }
    return true;
  }

  #detach(watch: Watch): void {
    if (!watch.entry) return;
    for (const subject of subjectsOf(watch.entry)) {
      const watches = this.#bySubject.get(subject);
      watches?.delete(watch);
      if (watches?.size === 0) this.#bySubject.delete(subject);
    }
    watch.entry = undefined;
  }
}

function subjectsOf({ id, owner, ancestors, rights }: Entry): Set<string> {
  return new Set([id, owner.id, ...(ancestors ?? []).map((a) => a.id), ...rights.projects.map((p) => p.id)]);
}
