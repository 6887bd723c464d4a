import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Names one run of one process for good: its number is used again after its end, its number with its start is not.
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
    return null; // ps ends with 1 when there is no such process.
  }
}

function linuxIdentity(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The second field is the program's name in brackets and may itself hold spaces and brackets.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const [state, startTicks] = [fields[0], fields[19]];
    if (state === 'Z' || state === 'X') return null;
    return `${pid} ${startTicks} ${readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()}`;
  } catch {
    return null; // The folder is gone once the process is.
  }
}

/** Whether the very process that had this identity still runs. */
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
 * Ends the process of this identity: each signal in turn, with time to obey before the next. One that is frozen is
 * woken first, or it would obey nothing but SIGKILL.
 *
 * @param signals from the most polite on, each with how long to wait for the end in milliseconds
 * @throws when it outlives all of them
 */
export async function endProcess(identity: string, signals: [NodeJS.Signals, number][]): Promise<void> {
  signalTo(identity, 'SIGCONT');
  for (const [signal, patienceMs] of signals) {
    signalTo(identity, signal);
    for (const until = Date.now() + patienceMs; Date.now() < until; await sleep(10)) {
      if (!stillRuns(identity)) return;
    }
  }
  if (stillRuns(identity)) throw new Error(`process ${identity.split(' ', 1)[0]} does not end`);
}
