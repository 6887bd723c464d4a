import { Queue } from '../src/tokens/queue.js';

/** A queue whose work ends when it is told to. */
function held(atOnceMax: number) {
  const begun: number[] = [];
  const ends: (() => void)[] = [];
  const queue = new Queue<number>(atOnceMax, (item) => {
    begun.push(item);
    const { promise, resolve } = Promise.withResolvers<void>();
    ends.push(resolve);
    return promise;
  });
  return { queue, begun, ends };
}
const aMoment = () => new Promise(setImmediate);

test('takes everything at once, however little of it is done', () => {
  const { queue, begun } = held(2);
  for (let i = 0; i < 100; i++) queue.put(i);
  expect(begun).toEqual([0, 1]);
});

test('does the next when one is done, in the order in which they were put in', async () => {
  const { queue, begun, ends } = held(2);
  for (let i = 0; i < 5; i++) queue.put(i);
  for (let done = 0; done < 5; done++) {
    ends[done]!();
    await aMoment();
  }
  expect(begun).toEqual([0, 1, 2, 3, 4]);
});

test('is idle when all is done, what was put in meanwhile too', async () => {
  const { queue, ends } = held(1);
  await queue.idle();
  queue.put(1);
  let isIdle = false;
  const idle = queue.idle().then(() => {
    isIdle = true;
  });
  queue.put(2);
  ends[0]!();
  await aMoment();
  expect(isIdle).toBe(false);
  ends[1]!();
  await idle;
});
