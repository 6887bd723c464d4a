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
    // The processor's time, which no other process adds to: with the square of the length it would be half a minute.
    const before = process.cpuUsage();
    expect([...acceptedCodings(`a${' '.repeat(200_000)}b`)]).toHaveLength(1);
    expect(process.cpuUsage(before).user / 1e6).toBeLessThan(3);
  });
});
