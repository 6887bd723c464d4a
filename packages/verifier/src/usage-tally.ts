import type { DenialReason, UsageLine } from '@latchkey/contracts';
import { copyOf } from './copy.js';

type Status = UsageLine['status'];

interface Line {
  readonly tokenId: string;
  readonly hourMs: number;
  readonly route: string;
  readonly status: Status;
  readonly ip: string;
  readonly userAgent: string;
  count: number;
  readonly firstSeenMs: number;
  lastSeenMs: number;
}

const HOUR_MS = 3_600_000;

export interface UsageTallyLimits {
  /** Lines kept in all; beyond it, further callers of a token share a line without address and user agent. */
  readonly linesMax: number;
  /** Lines of one token with separate callers. */
  readonly linesPerTokenMax: number;
}

/**
 * Verdicts counted since the last `take`. Beyond a bound a verdict is counted without its caller.
 */
export class UsageTally {
  #byToken = new Map<string, Line[]>();
  #size = 0;
  /** Verdicts beyond the bounds even without their caller. */
  lost = 0;

  constructor(private readonly limits: UsageTallyLimits) {}

  get size(): number {
    return this.#size;
  }

  add(
    tokenId: string,
    route: string,
    status: 'allowed' | DenialReason,
    ip: string,
    userAgent: string,
    nowMs: number,
  ): void {
    const hourMs = nowMs - (nowMs % HOUR_MS);
    let lines = this.#byToken.get(tokenId);
    if (!lines) {
      lines = [];
      this.#byToken.set(tokenId, lines);
    }
    const line = find(lines, hourMs, route, status, ip, userAgent);
    if (line) {
      line.count++;
      line.lastSeenMs = nowMs;
      return;
    }
    const { linesMax, linesPerTokenMax } = this.limits;
    if (lines.length < linesPerTokenMax && this.#size < linesMax) {
      this.#append(lines, {
        tokenId,
        hourMs,
        route,
        status,
        ip: copyOf(ip),
        userAgent: copyOf(userAgent),
        count: 1,
        firstSeenMs: nowMs,
        lastSeenMs: nowMs,
      });
      return;
    }
    const folded = find(lines, hourMs, route, status, '', '');
    if (folded) {
      folded.count++;
      folded.lastSeenMs = nowMs;
    } else if (this.#size < 2 * linesMax) {
      this.#append(lines, {
        tokenId,
        hourMs,
        route,
        status,
        ip: '',
        userAgent: '',
        count: 1,
        firstSeenMs: nowMs,
        lastSeenMs: nowMs,
      });
    } else this.lost++;
  }

  #append(lines: Line[], line: Line): void {
    lines.push(line);
    this.#size++;
  }

  /** Returns and removes up to `max` lines. */
  take(max: number): UsageLine[] {
    const taken: UsageLine[] = [];
    for (const [tokenId, lines] of this.#byToken) {
      taken.push(...lines.splice(0, max - taken.length));
      if (lines.length === 0) this.#byToken.delete(tokenId);
      if (taken.length === max) break;
    }
    this.#size -= taken.length;
    return taken;
  }
}

/** Newest first: a caller's next request is most often like its last. */
function find(lines: readonly Line[], hourMs: number, route: string, status: Status, ip: string, userAgent: string) {
  for (let i = lines.length - 1; i >= 0; i--) {
    const line = lines[i]!;
    if (
      line.ip === ip &&
      line.route === route &&
      line.status === status &&
      line.userAgent === userAgent &&
      line.hourMs === hourMs
    )
      return line;
  }
  return undefined;
}
