import { Queue } from '../src/tokens/queue.js';

/** A queue whose items run until the test calls their `finish`. */
function controlled(atOnceMax: number) {
  const started: number[] = [];
  const finish: (() => void)[] = [];
  const queue = new Queue<number>(atOnceMax, (item) => {
    started.push(item);
    const { promise, resolve } = Promise.withResolvers<void>();
    finish.push(resolve);
    return promise;
  });
  return { queue, started, finish };
}
const aMoment = () => new Promise(setImmediate);

test('the queue accepts everything at once, and starts no more than its limit', () => {
  const { queue, started } = controlled(2);
  for (let i = 0; i < 100; i++) queue.put(i);
  expect(started).toEqual([0, 1]);
});

test('the queue starts the next item when one is done, in the order of insertion', async () => {
  const { queue, started, finish } = controlled(2);
  for (let i = 0; i < 5; i++) queue.put(i);
  for (let done = 0; done < 5; done++) {
    finish[done]!();
    await aMoment();
  }
  expect(started).toEqual([0, 1, 2, 3, 4]);
});

test('the queue is idle when all items are done, those put in meanwhile included', async () => {
  const { queue, finish } = controlled(1);
  await queue.idle();
  queue.put(1);
  let isIdle = false;
  const idle = queue.idle().then(() => {
    isIdle = true;
  });
  queue.put(2);
  finish[0]!();
  await aMoment();
  expect(isIdle).toBe(false);
  finish[1]!();
  await idle;
});
