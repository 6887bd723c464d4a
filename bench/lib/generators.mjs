/** The load generators of the proxy benchmarks: wrk where it can be had, peers/load.mjs else, and always for fixed rates. */
import { execFile } from 'node:child_process';
import { setPriority } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { start } from './processes.mjs';

const execute = promisify(execFile);
const peers = path.join(import.meta.dirname, '../peers');

/** @typedef {{ port: number, path: string, headers: Record<string, string> }} Target */
/** @typedef {{ count: number, errors: number, ms: number, p50: number, p99: number, late?: number }} Result */

/** As bytes of HTTP/1.1. @param {Target} target */
export const requestOf = ({ path: at, headers }) =>
  `GET ${at} HTTP/1.1\r\n${Object.entries(headers)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('')}\r\n`;

/**
 * As many requests as the target answers.
 * @param {import('./programs.mjs').Found} wrk
 * @param {number} processor
 */
export async function closedLoop(wrk, processor) {
  if ('notHad' in wrk) {
    const load = await start({ args: [path.join(peers, 'load.mjs')], processor, ready: null });
    return {
      name: 'peers/load.mjs',
      /** @param {Target} target @param {number} connections @param {number} seconds @returns {Promise<Result>} */
      run: async (target, connections, seconds) => {
        const job = { port: target.port, request: requestOf(target), connections, ms: seconds * 1_000 };
        return faultless(JSON.parse(await load.ask(JSON.stringify(job))));
      },
      stop: load.stop,
    };
  }
  return {
    name: `wrk ${wrk.version}`,
    /** @param {Target} target @param {number} connections @param {number} seconds @returns {Promise<Result>} */
    run: async ({ port, path: at, headers }, connections, seconds) => {
      const lines = Object.entries(headers).flatMap(([name, value]) => ['-H', `${name}: ${value}`]);
      const args = [
        '-t',
        '1',
        '-c',
        String(connections),
        '-d',
        `${seconds}s`,
        '-s',
        path.join(peers, 'wrk-report.lua'),
      ];
      const { stdout } = await execute('taskset', [
        ...['-c', String(processor), wrk.command],
        ...[...args, ...lines, `http://127.0.0.1:${port}${at}`],
      ]);
      const result = /^result (.+)$/m.exec(stdout)?.[1];
      if (!result) throw new Error(`wrk printed no result: ${stdout}`);
      return faultless(JSON.parse(result));
    },
    stop: async () => undefined,
  };
}

/** Requests at fixed times. It never sleeps, so others on its processor go first. @param {number} processor */
export async function fixedRate(processor) {
  const load = await start({ args: [path.join(peers, 'load.mjs')], processor, ready: null });
  setPriority(load.pid, 19);
  return {
    /** @param {Target} target @param {number} connections @param {number} seconds @param {number} rate @returns {Promise<Result>} */
    run: async (target, connections, seconds, rate) => {
      const job = { port: target.port, request: requestOf(target), connections, ms: seconds * 1_000, rate };
      return faultless(JSON.parse(await load.ask(JSON.stringify(job))));
    },
    /** A job as in peers/load.mjs. @param {object} job @returns {Promise<Result>} */
    ask: async (job) => JSON.parse(await load.ask(JSON.stringify(job))),
    stop: load.stop,
  };
}

/** @param {Result} result */
function faultless(result) {
  if (result.errors > 0 || result.count === 0)
    throw new Error(`${result.errors} of ${result.count} responses were not 200`);
  return result;
}

/**
 * Runs until a program has compiled what runs often: so many requests, at most so many seconds.
 * @param {(seconds: number) => Promise<{ count: number }>} run
 * @param {{ requests: number, seconds: number }} enough
 */
export async function warmUp(run, { requests, seconds }) {
  let count = 0;
  for (let second = 0; second < seconds && count < requests; second++) count += (await run(1)).count;
}
