import { type LookupAddress, type LookupOptions, lookup } from 'node:dns';
import type { LookupFunction } from 'node:net';

type Callback = Parameters<LookupFunction>[2];
interface Pending {
  readonly sinceMs: number;
  readonly callbacks: Callback[];
}

/** Nobody joins a lookup that has taken so long: connections are given up after the same time. */
export const LOOKUP_JOIN_MS = 5_000;

/**
 * `dns.lookup` for connections, one at a time for each name: the system's resolver has two threads for all names, and a
 * lookup cannot be cancelled, so those of a name that hangs would otherwise queue up in front of all others.
 * @param resolve `dns.lookup`
 * @param nowMs a monotonic clock
 */
export function sharedLookup(
  resolve: (
    name: string,
    options: LookupOptions,
    callback: (error: NodeJS.ErrnoException | null, address: string | LookupAddress[], family?: number) => void,
  ) => void = lookup,
  nowMs: () => number = () => performance.now(),
): LookupFunction {
  const pendings = new Map<string, Pending>();
  return (name, options, callback) => {
    const key = `${options.all} ${options.family} ${options.hints} ${name}`;
    const joined = pendings.get(key);
    if (joined && nowMs() - joined.sinceMs < LOOKUP_JOIN_MS) return void joined.callbacks.push(callback);
    if (joined) {
      const error = Object.assign(new Error(`looking up ${name} has not ended for ${LOOKUP_JOIN_MS} ms`), {
        code: 'EAI_AGAIN',
        syscall: 'getaddrinfo',
        hostname: name,
      });
      return void process.nextTick(callback, error, options.all ? [] : '');
    }
    const pending: Pending = { sinceMs: nowMs(), callbacks: [callback] };
    pendings.set(key, pending);
    resolve(name, options, (error, address, family) => {
      pendings.delete(key);
      for (const waiting of pending.callbacks) waiting(error, address, family);
    });
  };
}
