/** Processes of a benchmark: started on one processor, measured in processor time. */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

const setpriv = '/usr/bin/setpriv';
const STOP_MS = 10_000;
const START_MS = 15_000;

/**
 * Starts a program (`node` by default) on one processor and resolves at the first line of output that matches. It ends
 * with this process.
 * @param {{
 *   command?: string,
 *   args: string[],
 *   processor?: number,
 *   env?: Record<string, string | undefined>,
 *   ready?: RegExp | null,
 * }} options `ready` null: resolves at once
 */
export async function start({ command = process.execPath, args, processor, env = {}, ready = /^port (\d+)$/ }) {
  const tied = existsSync(setpriv) ? [setpriv, '--pdeathsig', 'TERM', '--'] : [];
  const pinned = processor === undefined ? [] : ['taskset', '-c', String(processor)];
  const [program, ...rest] = /** @type {[string, ...string[]]} */ ([...tied, ...pinned, command, ...args]);
  const child = spawn(program, rest, {
    env: { PATH: process.env['PATH'], HOME: process.env['HOME'], ...env },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout });
  /** @type {string[]} */
  const queue = [];
  /** @type {PromiseWithResolvers<string>[]} */
  const waiting = [];
  /** @type {RegExpExecArray | null | undefined} */
  let match;
  /** @type {Error | undefined} */
  let ended;
  const readiness = /** @type {PromiseWithResolvers<void>} */ (Promise.withResolvers());
  const exited = /** @type {PromiseWithResolvers<void>} */ (Promise.withResolvers());
  const end = (/** @type {Error} */ error) => {
    ended = error;
    readiness.reject(error);
    for (const answer of waiting.splice(0)) answer.reject(error);
    exited.resolve();
  };
  child.once('error', end);
  child.once('exit', (code, signal) => end(new Error(`${command} ${args[0]} ended with ${code ?? signal}`)));
  lines.on('line', (line) => {
    match ??= ready?.exec(line);
    if (match) readiness.resolve();
    const next = waiting.shift();
    if (next) next.resolve(line);
    else if (queue.length < 100) queue.push(line);
  });
  if (ready) await readiness.promise;
  // Its failure is reported to those who ask or wait for its port.
  else readiness.promise.catch(() => undefined);
  queue.length = 0;
  return {
    match: /** @type {RegExpExecArray} */ (match),
    pid: /** @type {number} */ (child.pid),
    /** Sends a line and resolves with the next line of output. @param {string} line @returns {Promise<string>} */
    ask: (line) => {
      if (ended) return Promise.reject(ended);
      const answer = /** @type {PromiseWithResolvers<string>} */ (Promise.withResolvers());
      waiting.push(answer);
      child.stdin.write(`${line}\n`);
      return answer.promise;
    },
    /** Resolves when a port of it accepts connections. @param {number} port */
    async listensOn(port) {
      const until = Date.now() + START_MS;
      while (!(await accepts(port))) {
        if (ended) throw ended;
        if (Date.now() > until) throw new Error(`${command} does not listen on ${port}`);
        await sleep(20);
      }
    },
    /** Processor seconds used so far by it and its child processes, as the scheduler counts them (Linux). */
    processorSeconds: () => processorSecondsOf(/** @type {number} */ (child.pid)),
    /** Resolves when it has ended. */
    async stop() {
      if (ended) return;
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
      await exited.promise;
      clearTimeout(timer);
    },
  };
}

/** @typedef {Awaited<ReturnType<typeof start>>} Started */

/** @param {number} port @returns {Promise<boolean>} */
function accepts(port) {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' });
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

/** Used so far by a process and its child processes. @param {number} pid */
export const processorSecondsOf = (pid) => nanoseconds(pid) / 1e9;

/** Moves a running process with all its threads to one processor. @param {number} pid @param {number} processor */
export function pin(pid, processor) {
  execFileSync('taskset', ['-acp', String(processor), String(pid)], { stdio: 'ignore' });
}

/** Of all threads of a process and of its children. @param {number | string} pid @returns {number} */
function nanoseconds(pid) {
  let sum = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    const dir = `/proc/${pid}/task/${thread}`;
    try {
      sum += Number(readFileSync(`${dir}/schedstat`, 'utf8').split(' ')[0]);
      for (const child of readFileSync(`${dir}/children`, 'utf8').split(' '))
        if (child !== '') sum += nanoseconds(child);
    } catch (error) {
      // A thread or child can have ended since it was listed; anything else makes the figures wrong.
      if (existsSync(dir)) throw error;
    }
  }
  return sum;
}

/**
 * The processors for the proxy and for the rest, of those that this process may use; no two threads of one core where
 * that can be had.
 * @returns {{ proxy: number, rest: number, note: string }} `note`: what makes the figures less comparable, or empty
 */
export function processors() {
  const allowed = listOf(/^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0');
  const proxy = /** @type {number} */ (allowed[0]);
  const siblings = siblingsOf(proxy);
  const rest = allowed.find((processor) => processor !== proxy && !siblings.includes(processor)) ?? allowed[1];
  if (rest === undefined) return { proxy, rest: proxy, note: 'one processor only: proxy, upstream and load share it' };
  const note = siblings.includes(rest) ? `processors ${proxy} and ${rest} are two threads of one core` : '';
  return { proxy, rest, note };
}

/** @param {number} processor */
function siblingsOf(processor) {
  const file = `/sys/devices/system/cpu/cpu${processor}/topology/thread_siblings_list`;
  return existsSync(file) ? listOf(readFileSync(file, 'utf8').trim()) : [];
}

/** Reads the kernel's lists of processors. @param {string} text such as `0-2,5` */
export function listOf(text) {
  return text.split(',').flatMap((part) => {
    const [first = 0, last = first] = part.split('-').map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}
