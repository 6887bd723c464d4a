import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Identifies a process uniquely: pids are reused, a pid with its start time is not.
 *
 * @returns `null` when no such process runs
 */
export function processIdentity(pid: number): string | null {
  if (!Number.isSafeInteger(pid) || pid <= 0) return null;
  if (process.platform === 'linux') return linuxIdentity(pid);
  try {
    const started = execFileSync('ps', ['-o', 'lstart=', '-p', String(pid)], { encoding: 'utf8' }).trim();
    return started ? `${pid} ${started}` : null;
  } catch {
    return null; // ps exits with 1 when there is no such process
  }
}

function linuxIdentity(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The second field is the program's name in brackets and can itself contain spaces and brackets.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const [state, startTicks] = [fields[0], fields[19]];
    if (state === 'Z' || state === 'X') return null;
    return `${pid} ${startTicks} ${readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()}`;
  } catch {
    return null; // the folder is removed with the process
  }
}

/** Whether the process of this identity still runs. */
export function stillRuns(identity: string): boolean {
  return processIdentity(Number(identity.split(' ', 1)[0])) === identity;
}

/** Sends a signal to the process of this identity; does nothing when it has ended. */
export function signalTo(identity: string, signal: NodeJS.Signals): void {
  if (!stillRuns(identity)) return;
  try {
    process.kill(Number(identity.split(' ', 1)[0]), signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/**
 * Ends the process of this identity: sends each signal in turn, with time to exit before the next. SIGCONT is sent first,
 * because a stopped process reacts to nothing but SIGKILL.
 *
 * @param signals the mildest first, each with how long to wait for the exit in milliseconds
 * @throws Error when the process survives all of them
 */
export async function endProcess(identity: string, signals: [NodeJS.Signals, number][]): Promise<void> {
  signalTo(identity, 'SIGCONT');
  for (const [signal, timeoutMs] of signals) {
    signalTo(identity, signal);
    for (const until = Date.now() + timeoutMs; Date.now() < until; await sleep(10)) {
      if (!stillRuns(identity)) return;
    }
  }
  if (stillRuns(identity)) throw new Error(`process ${identity.split(' ', 1)[0]} did not exit`);
}
