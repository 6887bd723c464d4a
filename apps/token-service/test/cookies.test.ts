import { readCookie, writeCookie } from '../src/http/cookies.js';

test.each([
  [undefined, undefined],
  ['', undefined],
  ['session', undefined],
  ['=x', undefined],
  ['sessions=x', undefined],
  ['Session=x', undefined],
  ['session=', ''],
  ['session=x', 'x'],
  ['a=1; session=x;b', 'x'],
  ['a;session = x ', 'x'],
  ['session=x; session=y', 'x'],
  ['session=a=b', 'a=b'],
  ['session=%61', '%61'],
  ['session="x"', '"x"'],
])('in the header %p the cookie named session is %p', (header, value) => {
  expect(readCookie(header, 'session')).toBe(value);
});

test.each(['__proto__', 'constructor', 'toString'])('a cookie named %s is found only when it was sent', (name) => {
  expect(readCookie('a=1', name)).toBeUndefined();
  expect(readCookie(`${name}=1`, name)).toBe('1');
});

test('a written cookie is hidden from scripts, and secure over https alone', () => {
  const cookie = { name: 'session', value: 'a-b_c', path: '/v1', sameSite: 'lax', maxAge: 0 } as const;
  const parts = (PUBLIC_URL: string) => writeCookie({ PUBLIC_URL }, cookie).split('; ');
  expect(parts('http://a')).toEqual(['session=a-b_c', ...['Max-Age=0', 'Path=/v1', 'HttpOnly', 'SameSite=Lax']]);
  expect(parts('https://a')).toContain('Secure');
});
