import { Backlog } from '../src/engine/backlog.js';

/** Bytes that show their place. */
const stream = (length: number) => Buffer.from(Uint8Array.from({ length }, (_, i) => (i * 7) % 251));

it.each([[[1]], [[1, 2, 3]], [[3, 700, 1, 1_500, 2]], [[4_000, 1]]])(
  'pieces of %j bytes are gathered in their order, whatever is dropped from their front meanwhile',
  (sizes) => {
    const sent = stream(20_000);
    for (const dropEach of [0, 1, 5]) {
      const backlog = new Backlog();
      let [from, to] = [0, 0];
      for (let i = 0; to < sent.length; i++) {
        const size = sizes[i % sizes.length]!;
        backlog.add(sent.subarray(to, to + size));
        to = Math.min(sent.length, to + size);
        const dropped = Math.min(dropEach, to - from - 1);
        backlog.dropTo(dropped);
        from += dropped;
        if (!backlog.bytes!.equals(sent.subarray(from, to))) throw new Error(`differs from ${from} to ${to}`);
      }
      backlog.dropTo(to - from);
      expect(backlog.bytes).toBeUndefined();
    }
  },
);

it('what was taken from it stays as it was', () => {
  const backlog = new Backlog();
  for (let i = 0; i < 10; i++) backlog.add(Buffer.from('ab'));
  const taken = backlog.bytes!.subarray(0, 5);
  backlog.dropTo(5);
  for (let i = 0; i < 2_000; i++) backlog.add(Buffer.from('x'));
  expect(taken.toString()).toBe('ababa');
});

it('a single piece is kept as it came', () => {
  const backlog = new Backlog();
  const piece = Buffer.from('abc');
  backlog.add(piece);
  expect(backlog.bytes).toBe(piece);
});

it('the bytes that are copied grow with what comes, not with its square', () => {
  const backlog = new Backlog();
  let copied = 0;
  const { copy } = Buffer.prototype;
  try {
    Buffer.prototype.copy = function (this: Buffer, ...rest: Parameters<typeof copy>) {
      copied += this.length;
      return copy.apply(this, rest);
    };
    for (let i = 0; i < 16_384; i++) backlog.add(Buffer.from('x'));
  } finally {
    Buffer.prototype.copy = copy;
  }
  expect(copied).toBeLessThan(4 * 16_384);
});
