import { BlockList, isIP, isIPv4 } from 'node:net';

const CIDR = /^(.+?)(?:\/(\d{1,3}))?$/;

/** True for an IP address or a CIDR. */
export function isNetwork(text: string): boolean {
  const match = CIDR.exec(text);
  const family = isIP(match?.[1] ?? '');
  return family !== 0 && (match?.[2] === undefined || Number(match[2]) <= (family === 4 ? 32 : 128));
}

/** A test for addresses within a list of addresses and CIDRs, each of which {@link isNetwork}. */
export function networkTest(networks: readonly string[]): (address: string) => boolean {
  if (networks.length === 0) return () => false;
  const list = new BlockList();
  for (const network of networks) {
    const [, address = '', bits] = CIDR.exec(network) ?? [];
    const family = isIPv4(address) ? 'ipv4' : 'ipv6';
    list.addSubnet(address, bits === undefined ? (family === 'ipv4' ? 32 : 128) : Number(bits), family);
  }
  return (address) => {
    const version = isIP(address);
    return version !== 0 && list.check(address, version === 4 ? 'ipv4' : 'ipv6');
  };
}

/** An address as one spelling: IPv4 inside IPv6 becomes IPv4, a zone is dropped. */
export function plainAddress(address: string | undefined): string {
  if (!address) return '';
  if (address.startsWith('::ffff:') && address.includes('.')) return address.slice(7);
  const zone = address.indexOf('%');
  return zone < 0 ? address : address.slice(0, zone);
}
