import { BlockList, isIP, isIPv4, isIPv6 } from 'node:net';

/** A block of addresses: its first address as a number, and the length of its prefix in bits. */
interface Block {
  bits: 32 | 128;
  prefix: number;
  value: bigint;
}

/** Means "no address" in a list, where an empty list means any address: no caller has the address `::`. */
export const NO_ADDRESS = '::/128';

/** Parses an address or a CIDR (RFC 4632, RFC 4291); IPv4-mapped IPv6 addresses count as IPv4. Undefined: neither. */
function readBlock(text: string): Block | undefined {
  const [address = '', length, more] = text.split('/');
  if (more !== undefined || (length !== undefined && !/^(0|[1-9]\d{0,2})$/.test(length))) return undefined;
  const whole = readAddress(address);
  if (!whole) return undefined;
  const mapped = isIPv6(address) && whole.bits === 32;
  const prefix = length === undefined ? whole.bits : Number(length) - (mapped ? 96 : 0);
  if (prefix < 0 || prefix > whole.bits) return undefined;
  const rest = BigInt(whole.bits - prefix);
  return { bits: whole.bits, prefix, value: (whole.value >> rest) << rest };
}

function readAddress(text: string): Pick<Block, 'bits' | 'value'> | undefined {
  if (isIPv4(text)) return { bits: 32, value: text.split('.').reduce((n, part) => (n << 8n) | BigInt(part), 0n) };
  if (!isIPv6(text) || text.includes('%')) return undefined;
  const dotted = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(text);
  const hex = (high: string, low: string) => ((Number(high) << 8) | Number(low)).toString(16);
  const plain = dotted ? `${dotted[1]}${hex(dotted[2]!, dotted[3]!)}:${hex(dotted[4]!, dotted[5]!)}` : text;
  const [head = '', tail] = plain.split('::');
  const front = head ? head.split(':') : [];
  const back = tail ? tail.split(':') : [];
  const groups = tail === undefined ? front : [...front, ...Array(8 - front.length - back.length).fill('0'), ...back];
  const value = groups.reduce((n, group) => (n << 16n) | BigInt(`0x${group}`), 0n);
  return value >> 32n === 0xffffn ? { bits: 32, value: value & 0xffffffffn } : { bits: 128, value };
}

function writeBlock({ bits, prefix, value }: Block): string {
  if (bits === 32) {
    const octets = [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 255n);
    return `${octets.join('.')}/${prefix}`;
  }
  const groups = Array.from({ length: 8 }, (_, i) => ((value >> BigInt(112 - 16 * i)) & 0xffffn).toString(16));
  return `${compressed(groups)}/${prefix}`;
}

/** RFC 5952 section 4.2: the longest run of at least two zero groups becomes `::`; the first one if several are equal. */
function compressed(groups: string[]): string {
  let best = { at: 0, length: 1 };
  for (let at = 0; at < 8; at++) {
    let length = 0;
    while (groups[at + length] === '0') length++;
    if (length > best.length) best = { at, length };
  }
  if (best.length < 2) return groups.join(':');
  return `${groups.slice(0, best.at).join(':')}::${groups.slice(best.at + best.length).join(':')}`;
}

const contains = (outer: Block, inner: Block): boolean =>
  outer.bits === inner.bits &&
  outer.prefix <= inner.prefix &&
  outer.value >> BigInt(outer.bits - outer.prefix) === inner.value >> BigInt(outer.bits - outer.prefix);

const readStored = (text: string): Block => readBlock(text)!;

/** The address or CIDR in canonical form, always with its length; undefined when it is neither. */
export function canonicalAddress(text: string): string | undefined {
  const block = readBlock(text);
  return block && writeBlock(block);
}

/** Whether `outer` allows every address that `inner` allows. Both are in canonical form; an empty list allows all. */
export function addressesWithin(inner: readonly string[], outer: readonly string[]): boolean {
  if (outer.length === 0) return true;
  if (inner.length === 0) return false;
  const blocks = outer.map(readStored);
  return inner.every((text) => blocks.some((block) => contains(block, readStored(text))));
}

/** The addresses that both lists allow: two blocks nest or are disjoint, so the narrower of each nested pair. */
export function intersectAddresses(a: readonly string[], b: readonly string[]): string[] {
  if (a.length === 0) return [...b];
  if (b.length === 0) return [...a];
  const both = a.flatMap((left) =>
    b.flatMap((right) => {
      if (contains(readStored(left), readStored(right))) return [right];
      return contains(readStored(right), readStored(left)) ? [left] : [];
    }),
  );
  return both.length ? [...new Set(both)] : [NO_ADDRESS];
}

const MAPPED = new BlockList();
MAPPED.addSubnet('::ffff:0:0', 96, 'ipv6');

/**
 * Matches a caller's address against addresses and CIDRs, each for its own family: `::/0` is every IPv6 address and no
 * IPv4 address, and an IPv4-mapped IPv6 address counts as IPv4. Parsed once; Node compares, because a check waits for it.
 */
export class Addresses {
  readonly #v4 = new BlockList();
  readonly #v6 = new BlockList();

  /** @param allowed CIDRs or single addresses; any other text allows nothing */
  constructor(allowed: readonly string[]) {
    for (const text of allowed) {
      const [address, prefix] = canonicalAddress(text)?.split('/') ?? [];
      if (address === undefined) continue;
      if (isIPv4(address)) this.#v4.addSubnet(address, Number(prefix), 'ipv4');
      else this.#v6.addSubnet(address, Number(prefix), 'ipv6');
    }
  }

  /** Whether the address is allowed; false for a text that is not an address. */
  include(address: string): boolean {
    if (isIP(address) !== 6) return this.#v4.check(address, 'ipv4');
    return (MAPPED.check(address, 'ipv6') ? this.#v4 : this.#v6).check(address, 'ipv6');
  }
}
