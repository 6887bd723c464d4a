import {
  ALPHABET,
  checksum,
  digestSecret,
  hashOfDigest,
  hashSecret,
  hideSecrets,
  mint,
  parse,
  RANDOM_LENGTH,
  startOf,
} from '../src/index.js';

/** CRC-32 bit by bit, as in the standard: the table-driven one is compared with it. */
function crcBitwise(text: string): number {
  let crc = 0xffffffff;
  for (const byte of Buffer.from(text, 'ascii')) {
    crc ^= byte;
    for (let i = 0; i < 8; i++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return (crc ^ 0xffffffff) >>> 0;
}

describe('mint', () => {
  it('makes strings of the published pattern that can be parsed', () => {
    for (const kind of ['pat', 'prj'] as const) {
      for (let i = 0; i < 500; i++) {
        const secret = mint(kind);
        expect(secret).toMatch(/^lk_(pat|prj)_[0-9A-Za-z]{36}$/);
        expect(parse(secret)).toEqual({ ok: true, prefix: 'lk', kind, start: secret.slice(0, 11) });
      }
    }
  });

  it('draws every character equally often', () => {
    const counts = new Map<string, number>();
    const draws = 20_000;
    for (let i = 0; i < draws / RANDOM_LENGTH; i++) {
      for (const c of mint('pat').slice(7, 37)) counts.set(c, (counts.get(c) ?? 0) + 1);
    }
    const expected = draws / 62;
    const chiSquare = [...ALPHABET].reduce((sum, c) => sum + ((counts.get(c) ?? 0) - expected) ** 2 / expected, 0);
    expect(chiSquare).toBeLessThan(140); // 61 degrees of freedom: exceeded by chance less than once in 10^7 runs
  });

  it('drops bytes that would make some characters more likely', () => {
    const source = (n: number) => Uint8Array.from({ length: n }, (_, i) => (i % 2 ? 255 : 61));
    expect(mint('pat', 'lk', source)).toContain('z'.repeat(30));
  });

  it('rejects an ambiguous prefix', () => {
    for (const prefix of ['', 'LK', 'l_k', '1k', 'a'.repeat(17)]) expect(() => mint('pat', prefix)).toThrow(TypeError);
  });
});

describe('checksum', () => {
  it('agrees with a bitwise CRC-32 in base62, most significant digit first', () => {
    for (const text of ['', 'lk_pat_', mint('prj'), '123456789']) {
      let n = 0;
      for (const c of checksum(text)) n = n * 62 + ALPHABET.indexOf(c);
      expect(n).toBe(crcBitwise(text));
    }
    expect(crcBitwise('123456789')).toBe(0xcbf43926);
  });
});

describe('parse', () => {
  it('rejects any single wrong character', () => {
    const secret = mint('pat');
    for (let i = 0; i < secret.length; i++) {
      const wrong = secret.slice(0, i) + (secret[i] === 'x' ? 'y' : 'x') + secret.slice(i + 1);
      expect(parse(wrong).ok).toBe(false);
    }
  });

  it('returns the reason', () => {
    const secret = mint('pat');
    const last = secret.at(-1) === '0' ? '1' : '0';
    expect(parse(secret.slice(0, -1) + last)).toEqual({ ok: false, reason: 'bad_checksum' });
    for (const text of [
      '',
      'x',
      secret.slice(1),
      `${secret}0`,
      secret.replace('pat', 'xyz'),
      secret.replace('lk', 'ab'),
      `${secret.slice(0, 20)}ü${secret.slice(21)}`,
    ]) {
      expect(parse(text)).toEqual({ ok: false, reason: 'malformed' });
    }
  });
});

it('includes four random characters in the start', () => {
  const secret = mint('prj');
  expect(startOf(secret)).toBe(secret.slice(0, 11));
});

it('digests to 32 characters that convert to the same hash', () => {
  const secret = mint('pat');
  expect(digestSecret(secret)).toHaveLength(32);
  expect(hashOfDigest(digestSecret(secret))).toBe(hashSecret(secret));
});

it('hashes to 43 characters of base64url', () => {
  expect(hashSecret('abc')).toBe('ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0');
});

describe('hideSecrets', () => {
  it('cuts every secret in a text after its start, and changes nothing else', () => {
    const [first, second] = [mint('pat'), mint('prj', 'acme2')];
    const text = `curl/8 (token=${first}; ${second}${second}) x_pat_short`;
    const hidden = hideSecrets(text);
    expect(hidden).toBe(
      `curl/8 (token=${first.slice(0, 11)}...; ${second.slice(0, 14)}...${second.slice(0, 14)}...) x_pat_short`,
    );
    expect(hideSecrets('Mozilla/5.0 (a_b_c)')).toBe('Mozilla/5.0 (a_b_c)');
  });
});
