import type { UpstreamPool } from './upstream-pool.js';

/** Several upstreams that serve the same: requests go to those that are available, in turn. */
export class UpstreamGroup {
  /** Each process and route begins at another one. */
  #last: number;

  /** @param members at least one, at most 32 */
  constructor(private readonly members: readonly UpstreamPool[]) {
    this.#last = Math.floor(Math.random() * members.length);
  }

  /**
   * The next available upstream; when none is, the next one all the same.
   * @param tried bits of the members that are left out, see `bitOf`
   * @returns undefined only when all were tried
   */
  pick(tried: number): UpstreamPool | undefined {
    const { members } = this;
    let other = -1;
    for (let i = 1; i <= members.length; i++) {
      const at = (this.#last + i) % members.length;
      if ((tried & (1 << at)) !== 0) continue;
      if (members[at]!.health?.isAvailable !== false) {
        this.#last = at;
        return members[at];
      }
      if (other < 0) other = at;
    }
    if (other < 0) return undefined;
    this.#last = other;
    return members[other];
  }

  bitOf(member: UpstreamPool): number {
    return 1 << this.members.indexOf(member);
  }
}
