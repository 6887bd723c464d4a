import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Waits until a condition holds.
 *
 * @param condition called repeatedly until it returns something truthy; while it throws it does not hold
 * @param options `timeoutMs` in all (default 10 000), `intervalMs` between calls (default 20), `what` is awaited,
 *   for the message
 * @returns what the condition returned
 * @throws Error at the timeout, with what the condition threw last as its cause
 */
export async function waitFor<T>(
  condition: () => T | Promise<T>,
  options: { timeoutMs?: number; intervalMs?: number; what?: string } = {},
): Promise<NonNullable<Awaited<T>>> {
  const { timeoutMs = 10_000, intervalMs = 20, what = 'the condition' } = options;
  const until = performance.now() + timeoutMs;
  for (;;) {
    let cause: unknown;
    try {
      const result = await condition();
      if (result) return result;
    } catch (error) {
      cause = error;
    }
    if (performance.now() >= until) throw new Error(`${what} did not hold within ${timeoutMs} ms`, { cause });
    await sleep(intervalMs);
  }
}
