import { BlockList, isIP } from 'node:net';
import {
  DENIAL_REASONS,
  type DenialReason,
  type RpcRateBucket,
  type RpcRateLimit,
  type TokenFacts,
} from '@latchkey/contracts';

export const kindOf = (kind: string): 'pat' | 'prj' => (kind === 'prj' ? 'prj' : 'pat');
export const ownerTypeOf = (type: string): 'user' | 'project' => (type === 'project' ? 'project' : 'user');

/** A denial that this verifier does not know, from a newer token-service, still denies. */
export function denialOf(denial: string): DenialReason | '' {
  return denial === '' || (DENIAL_REASONS as readonly string[]).includes(denial)
    ? (denial as DenialReason)
    : 'disabled';
}

const UNLIMITED: readonly RpcRateBucket[] = [];

/** What a use is counted in; an authority of version 0.1 names the strictest limit alone. */
export function ratesOf({ rates, rateLimit }: Pick<TokenFacts, 'rates' | 'rateLimit'>): readonly RpcRateBucket[] {
  if (rates && rates.length > 0) return rates;
  return rateLimit ? [{ bucket: '', ...rateLimit }] : UNLIMITED;
}

/** Of several limits the one that lets the fewest requests through in its window; null: there is none. */
export function strictestRate(rates: readonly RpcRateBucket[]): RpcRateLimit | null {
  if (rates.length === 0) return null;
  const { limit, windowSeconds } = rates.reduce((a, b) =>
    a.limit / a.windowSeconds <= b.limit / b.windowSeconds ? a : b,
  );
  return { limit, windowSeconds };
}

const MAPPED = new BlockList();
MAPPED.addSubnet('::ffff:0:0', 96, 'ipv6');

/** CIDRs, each for its own family: `::/0` is every IPv6 address and no IPv4 one, however that is written. */
export class Addresses {
  readonly #v4 = new BlockList();
  readonly #v6 = new BlockList();

  /** @param allowed CIDRs or single addresses; what is neither allows nothing */
  constructor(allowed: readonly string[]) {
    for (const text of allowed) {
      const [address = '', bits] = text.split('/');
      const family = isIP(address) === 6 ? 'ipv6' : 'ipv4';
      const longest = family === 'ipv6' ? 128 : 32;
      const length = bits === undefined ? longest : Number(bits);
      if (isIP(address) !== 0 && Number.isInteger(length) && length >= 0 && length <= longest && bits !== '')
        (family === 'ipv6' ? this.#v6 : this.#v4).addSubnet(address, length, family);
    }
  }

  /** Whether the address is among them; one that is none is not. */
  include(address: string): boolean {
    if (isIP(address) !== 6) return this.#v4.check(address, 'ipv4');
    return (MAPPED.check(address, 'ipv6') ? this.#v4 : this.#v6).check(address, 'ipv6');
  }
}
