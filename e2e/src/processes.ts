import { waitFor } from '@latchkey/testing';
import { ask } from './caller.js';
import { isAlive, type Place, readyOf } from './stack.js';

export type Part = 'tokenService' | 'gateway' | 'jobs' | 'postgres' | 'redis';

/** The processes of one part of the stack, as they are now. */
export function pidsOf(place: Place, part: Part): number[] {
  const pids = [readyOf(place).pids[part] ?? []].flat();
  if (pids.length === 0) throw new Error(`the launcher runs no ${part} itself`);
  return pids;
}

/** Sends a signal to every process of a part. */
export function signal(place: Place, part: Part, name: NodeJS.Signals): void {
  for (const pid of pidsOf(place, part)) process.kill(pid, name);
}

/** Freezes a service while something happens; sockets stay open and get no response. */
export async function whilePaused<T>(place: Place, part: Part, during: () => Promise<T>): Promise<T> {
  const pids = pidsOf(place, part);
  for (const pid of pids) process.kill(pid, 'SIGSTOP');
  try {
    return await during();
  } finally {
    for (const pid of pids) if (isAlive(pid)) process.kill(pid, 'SIGCONT');
  }
}

/** Kills a part and waits until the launcher has started it again and everything is ready. @returns milliseconds taken */
export async function killAndAwaitReturn(place: Place, part: Part): Promise<number> {
  const before = pidsOf(place, part);
  const at = performance.now();
  for (const pid of before) process.kill(pid, 'SIGKILL');
  await waitFor(() => pidsOf(place, part).every((pid) => !before.includes(pid) && isAlive(pid)), {
    timeoutMs: 30_000,
    what: `the launcher starting ${part} again`,
  });
  await allReady(place);
  return performance.now() - at;
}

/** Waits until the gateway, the token-service and jobs report that they are ready. */
export async function allReady(place: Place): Promise<void> {
  // The token-service's ops port and that of jobs are the two after the gateway's.
  const opsPort = Number(new URL(readyOf(place).opsUrl).port);
  await waitFor(
    async () => {
      const asked = [0, 1, 2].map((after) => ask(`http://127.0.0.1:${opsPort + after}/readyz`));
      return (await Promise.all(asked)).every(({ status }) => status === 200);
    },
    { timeoutMs: 30_000, intervalMs: 100, what: 'the stack being ready again' },
  );
}
