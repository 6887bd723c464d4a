import { acceptedCodings } from '../src/handlers/console.js';

describe('Accept-Encoding', () => {
  it.each<[string | undefined, string[]]>([
    [undefined, ['']],
    ['gzip, deflate, br', ['gzip', 'deflate', 'br']],
    ['GZIP', ['gzip']],
    ['gzip;q=0, br;q=0.001', ['br']],
    [' gzip ; q=0 ,\tbr\t;\tq=1.0 ', ['br']],
    ['gzip;a=b;q=0', []],
    ['gzip;q=x, br;q=', []],
  ])('%j accepts %j', (header, codings) => {
    expect([...acceptedCodings(header)]).toEqual(codings);
  });

  it('is read in linear time', () => {
    // With the square of its length this would take minutes.
    expect([...acceptedCodings(`a${' '.repeat(2_000_000)}b`)]).toHaveLength(1);
  });
});
