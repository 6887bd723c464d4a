import { setTimeout as sleep } from 'node:timers/promises';

/** Does the work and returns, or throws, at the next whole multiple of `floorMs` since it began: no timing side channel. */
export async function atMultiplesOf<T>(floorMs: number, work: () => Promise<T>): Promise<T> {
  const startedMs = performance.now();
  try {
    return await work();
  } finally {
    const tookMs = performance.now() - startedMs;
    await sleep(Math.ceil(tookMs / floorMs) * floorMs - tookMs);
  }
}
