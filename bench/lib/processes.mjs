/** Processes of a benchmark: started on one processor, measured in processor time. */
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

/**
 * Starts `node <args>` on one processor (where `taskset` is to be had) and resolves at the first line of output that
 * matches.
 * @param {{args: string[], processor?: number, env?: Record<string, string>, ready?: RegExp}} options
 */
export async function start({ args, processor, env = {}, ready = /^port (\d+)$/ }) {
  const pinned = processor === undefined ? [] : ['taskset', '-c', String(processor)];
  const [command, ...rest] = [...pinned, process.execPath, ...args];
  const child = spawn(command, rest, {
    env: { PATH: process.env.PATH, HOME: process.env.HOME, ...env },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout });
  const queue = [];
  const waiting = [];
  let match;
  const readiness = Promise.withResolvers();
  child.once('error', readiness.reject);
  child.once('exit', (code) => readiness.reject(new Error(`${args[0]} ended with ${code}`)));
  lines.on('line', (line) => {
    match ??= ready?.exec(line);
    if (match) readiness.resolve();
    const next = waiting.shift();
    if (next) next(line);
    else if (queue.length < 100) queue.push(line);
  });
  if (ready) await readiness.promise;
  else readiness.promise.catch(() => undefined);
  queue.length = 0;
  return {
    match,
    pid: child.pid,
    /** Sends a line and resolves with the next line of output. */
    ask: (line) =>
      new Promise((resolve) => {
        waiting.push(resolve);
        child.stdin.write(`${line}\n`);
      }),
    /** Processor seconds used so far by all its threads, as the scheduler counts them (Linux). */
    processorSeconds() {
      const threads = readdirSync(`/proc/${child.pid}/task`);
      return threads.reduce((sum, thread) => sum + threadNanoseconds(child.pid, thread), 0) / 1e9;
    },
    stop() {
      child.removeAllListeners('exit');
      child.kill('SIGTERM');
    },
  };
}

function threadNanoseconds(pid, thread) {
  try {
    return Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]);
  } catch {
    return 0; // a thread that has ended since it was listed
  }
}

/** Median, lowest and highest. */
export function summary(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const median = sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { median, low: sorted[0], high: sorted.at(-1) };
}
