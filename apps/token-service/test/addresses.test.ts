import { addressesWithin, canonicalAddress, intersectAddresses, NO_ADDRESS } from '../src/verification/addresses.js';

test.each([
  ['10.1.2.3', '10.1.2.3/32'],
  ['10.1.2.3/8', '10.0.0.0/8'],
  ['0.0.0.0/0', '0.0.0.0/0'],
  ['255.255.255.255/31', '255.255.255.254/31'],
  ['2001:DB8::1', '2001:db8::1/128'],
  ['2001:db8:0:0:1:0:0:1/128', '2001:db8::1:0:0:1/128'],
  ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1/128'],
  ['::', '::/128'],
  ['::/0', '::/0'],
  ['::ffff:10.0.0.1', '10.0.0.1/32'],
  ['::ffff:a00:1', '10.0.0.1/32'],
  ['::ffff:10.0.0.0/104', '10.0.0.0/8'],
  ['64:ff9b::10.0.0.1', '64:ff9b::a00:1/128'],
])('%s is written %s', (given, canonical) => {
  expect(canonicalAddress(given)).toBe(canonical);
  expect(canonicalAddress(canonical)).toBe(canonical);
});

test.each([
  '',
  '10.0.0',
  '10.0.0.256',
  '010.0.0.1',
  '10.0.0.0/33',
  '10.0.0.0/-1',
  '10.0.0.0/08',
  '10.0.0.0/8/8',
  '::1/129',
  'fe80::1%eth0',
  '::ffff:10.0.0.0/95',
  '1:2:3:4:5:6:7',
  'localhost',
  '10.0.0.0/',
])('%p is no address', (given) => {
  expect(canonicalAddress(given)).toBeUndefined();
});

test('what lies within what', () => {
  expect(addressesWithin([], [])).toBe(true);
  expect(addressesWithin([], ['10.0.0.0/8'])).toBe(false);
  expect(addressesWithin(['10.1.0.0/16'], ['10.0.0.0/8', '11.0.0.0/8'])).toBe(true);
  expect(addressesWithin(['10.0.0.0/8'], ['10.1.0.0/16'])).toBe(false);
});

test('what two lists both allow, and nothing where they share nothing', () => {
  expect(intersectAddresses(['10.0.0.0/8'], [])).toEqual(['10.0.0.0/8']);
  expect(intersectAddresses(['10.0.0.0/8', '192.0.2.0/24'], ['10.1.0.0/16', '192.0.0.0/16'])).toEqual([
    '10.1.0.0/16',
    '192.0.2.0/24',
  ]);
  expect(intersectAddresses(['10.0.0.0/8'], ['11.0.0.0/8'])).toEqual([NO_ADDRESS]);
});
