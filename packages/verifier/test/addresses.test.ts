import { Addresses, addressesWithin, canonicalAddress, intersectAddresses, NO_ADDRESS } from '../src/addresses.js';

/** Addresses and CIDRs, and their canonical form. */
const NETWORKS: [given: string, canonical: string][] = [
  ['10.1.2.3', '10.1.2.3/32'],
  ['10.1.2.3/8', '10.0.0.0/8'],
  ['0.0.0.0/0', '0.0.0.0/0'],
  ['255.255.255.255/31', '255.255.255.254/31'],
  ['2001:DB8::1', '2001:db8::1/128'],
  ['2001:db8:0:0:1:0:0:1/128', '2001:db8::1:0:0:1/128'],
  ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1/128'],
  ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1/128'],
  ['2001:db8::/127', '2001:db8::/127'],
  ['2001:db8:ffff:ffff::/33', '2001:db8:8000::/33'],
  ['::', '::/128'],
  ['::/0', '::/0'],
  ['::ffff:10.0.0.1', '10.0.0.1/32'],
  ['::ffff:a00:1', '10.0.0.1/32'],
  ['::FFFF:10.0.0.1', '10.0.0.1/32'],
  ['::ffff:10.0.0.0/104', '10.0.0.0/8'],
  ['::ffff:0:0/96', '0.0.0.0/0'],
  ['64:ff9b::10.0.0.1', '64:ff9b::a00:1/128'],
  ['::10.0.0.1', '::a00:1/128'],
  ['2001:db8:1:2:3:4:10.0.0.1/112', '2001:db8:1:2:3:4:a00:0/112'],
];

/** Neither an address nor a CIDR: rejected everywhere, and no address is within them. */
const NO_NETWORKS = [
  '',
  '/',
  '/8',
  '10.0.0',
  '10.1',
  '167772161',
  '0x0a.0.0.1',
  '10.0.0.256',
  '010.0.0.1',
  ' 10.0.0.1',
  '10.0.0.1 ',
  '10.0.0.0/33',
  '10.0.0.0/-1',
  '10.0.0.0/08',
  '10.0.0.0/8/8',
  '10.0.0.0/',
  '10.0.0.0/x',
  '10.0.0.0/0x8',
  '10.0.0.0/255.0.0.0',
  '::1/129',
  '::1/0128',
  'fe80::1%eth0',
  'fe80::%eth0/10',
  '::ffff:10.0.0.0/95',
  '::ffff:10.0.0.0/8',
  '1:2:3:4:5:6:7',
  '1::2::3',
  'localhost',
];

/** Whether an address is within a network: the same result from every function. */
const WITHIN: [network: string, address: string, inside: boolean][] = [
  ['192.0.2.0/24', '192.0.2.7', true],
  ['192.0.2.0/24', '192.0.3.7', false],
  ['192.0.2.9/24', '192.0.2.7', true],
  ['192.0.2.0/24', '::ffff:192.0.2.7', true],
  ['192.0.2.0/24', '::ffff:c000:207', true],
  ['192.0.2.0/24', '::FFFF:192.0.2.7', true],
  ['192.0.2.0/24', '::192.0.2.7', false],
  ['192.0.2.7', '192.0.2.7', true],
  ['192.0.2.7', '192.0.2.8', false],
  ['192.0.2.6/31', '192.0.2.7', true],
  ['192.0.2.6/31', '192.0.2.8', false],
  ['0.0.0.0/0', '255.255.255.255', true],
  ['0.0.0.0/0', '::ffff:1.2.3.4', true],
  ['0.0.0.0/0', '2001:db8::1', false],
  ['::ffff:10.0.0.0/104', '10.1.2.3', true],
  ['::ffff:10.0.0.0/104', '11.1.2.3', false],
  ['::/0', '2001:db8::1', true],
  ['::/0', '10.0.0.1', false],
  ['::/0', '::ffff:10.0.0.1', false],
  ['2001:db8::/32', '2001:DB8:0:0::5', true],
  ['2001:db8::/32', '2001:db9::5', false],
  ['::1', '::1', true],
  ['::1', '127.0.0.1', false],
  ['::/128', '::1', false],
];

/** Not addresses of a caller: within no network. */
const NO_ADDRESSES = ['', 'nonsense', '10.0.0', '010.0.0.1', '10.0.0.1/32', '10.0.0.1:80'];

it.each(NETWORKS)('the canonical form of %s is %s, and allows the same', (given, canonical) => {
  expect(canonicalAddress(given)).toBe(canonical);
  expect(canonicalAddress(canonical)).toBe(canonical);
  const first = canonical.split('/', 1)[0]!;
  for (const network of [given, canonical]) expect(new Addresses([network]).include(first)).toBe(true);
});

it.each(NO_NETWORKS)('%p is not a network, and allows nothing', (given) => {
  expect(canonicalAddress(given)).toBeUndefined();
  const addresses = new Addresses([given]);
  for (const address of ['10.0.0.1', '::1', 'fe80::1', '::ffff:10.0.0.1', given])
    expect(addresses.include(address)).toBe(false);
});

it.each(WITHIN)('network %s contains %s: %p, by every function', (network, address, inside) => {
  expect(new Addresses([network]).include(address)).toBe(inside);
  expect(new Addresses(['203.0.113.0/24', '2001:db8:ffff::/48', network]).include(address)).toBe(inside);
  expect(addressesWithin([canonicalAddress(address)!], [canonicalAddress(network)!])).toBe(inside);
});

it.each(NO_ADDRESSES)('%p is within no network', (address) => {
  expect(new Addresses(['0.0.0.0/0', '::/0', address]).include(address)).toBe(false);
});

it('decides whether one list lies within another', () => {
  expect(addressesWithin([], [])).toBe(true);
  expect(addressesWithin([], ['10.0.0.0/8'])).toBe(false);
  expect(addressesWithin(['10.1.0.0/16'], ['10.0.0.0/8', '11.0.0.0/8'])).toBe(true);
  expect(addressesWithin(['10.0.0.0/8'], ['10.1.0.0/16'])).toBe(false);
  expect(addressesWithin(['2001:db8::/32'], ['2001:db8::/48'])).toBe(false);
  expect(addressesWithin(['2001:db8:1::/48'], ['10.0.0.0/8', '2001:db8::/32'])).toBe(true);
});

it('intersects two lists, to no address when they are disjoint', () => {
  expect(intersectAddresses(['10.0.0.0/8'], [])).toEqual(['10.0.0.0/8']);
  expect(intersectAddresses(['10.0.0.0/8', '192.0.2.0/24'], ['10.1.0.0/16', '192.0.0.0/16'])).toEqual([
    '10.1.0.0/16',
    '192.0.2.0/24',
  ]);
  expect(intersectAddresses(['10.0.0.0/8'], ['11.0.0.0/8'])).toEqual([NO_ADDRESS]);
  expect(intersectAddresses(['10.0.0.0/8'], ['::/0'])).toEqual([NO_ADDRESS]);
});
