/** The normal form of an address: IPv4-mapped IPv6 becomes IPv4, a zone is dropped. */
export function plainAddress(address: string | undefined): string {
  if (!address) return '';
  if (address.startsWith('::ffff:') && address.includes('.')) return address.slice(7);
  const zone = address.indexOf('%');
  return zone < 0 ? address : address.slice(0, zone);
}
