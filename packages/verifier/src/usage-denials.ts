import type { DenialLine, DenialReason } from '@latchkey/contracts';
import { copyOf } from './copy.js';

export interface UsageDenialLimits {
  /** Denials kept of existing tokens. */
  readonly realMax: number;
  /** Of these, denials of one token. */
  readonly perTokenMax: number;
  /** Denials kept without a token: an attacker can cause any number of them. */
  readonly junkMax: number;
  /** Of these, denials with one reason from one address. */
  readonly perReasonAndAddressMax: number;
}

export const USAGE_DENIAL_LIMITS: UsageDenialLimits = {
  realMax: 700,
  perTokenMax: 50,
  junkMax: 300,
  perReasonAndAddressMax: 20,
};

/** Denials since the last `take`, bounded so that junk cannot displace denials of existing tokens. */
export class UsageDenials {
  #real: DenialLine[] = [];
  #junk: DenialLine[] = [];
  readonly #counts = new Map<string, number>();
  #dropped = 0;

  constructor(private readonly limits: UsageDenialLimits = USAGE_DENIAL_LIMITS) {}

  get size(): number {
    return this.#real.length + this.#junk.length;
  }

  add(line: DenialLine): void {
    const { realMax, perTokenMax, junkMax, perReasonAndAddressMax } = this.limits;
    const real = line.tokenId !== null;
    const list = real ? this.#real : this.#junk;
    const name = real ? line.tokenId! : junkName(line.reason, line.ip);
    const count = this.#counts.get(name) ?? 0;
    if (list.length >= (real ? realMax : junkMax) || count >= (real ? perTokenMax : perReasonAndAddressMax)) {
      this.#dropped++;
      return;
    }
    this.#counts.set(name, count + 1);
    const { requestId, route, method, ip } = line;
    list.push({
      ...line,
      requestId: copyOf(requestId),
      route: copyOf(route),
      method: copyOf(method),
      ip: copyOf(ip),
    });
  }

  /** Returns and removes all. */
  take(): { denials: DenialLine[]; dropped: number } {
    const taken = { denials: [...this.#real, ...this.#junk], dropped: this.#dropped };
    this.#real = [];
    this.#junk = [];
    this.#counts.clear();
    this.#dropped = 0;
    return taken;
  }
}

const junkName = (reason: DenialReason, ip: string) => `${reason} ${ip}`;
