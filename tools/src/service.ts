import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { endLeftover, endProcess, noteProcess, startChild } from '@latchkey/local-stack';
import type { Output } from './output.js';
import type { Running } from './supervised-process.js';

/** A service of Latchkey and how to start it. */
export interface ServiceSpec {
  name: string;
  /** The built program, relative to the repository. */
  entry: string;
  env: Record<string, string>;
  /** Returns 200 once the service is ready. */
  readyUrl: string;
}

/** Long enough for a busy machine; a service that fails exits sooner. */
const readyTimeoutMs = 180_000;
const pollMs = 50;
/** Services exit within 15 s of SIGTERM. */
const stopSignals: [NodeJS.Signals, number][] = [
  ['SIGTERM', 17_000],
  ['SIGKILL', 5_000],
];

/**
 * Starts a service on the current Node and waits until it is ready. On Linux it ends with this process; one left over from
 * a crash is ended first.
 *
 * @param processesDir folder of the files that identify the processes
 * @param signal stops it, also while it is starting
 * @throws Error when it exits or times out before it is ready; its output has gone to `output`
 */
export async function startService(
  root: string,
  spec: ServiceSpec,
  processesDir: string,
  output: Output,
  signal: AbortSignal,
): Promise<Running> {
  const processFile = path.join(processesDir, spec.name);
  await endLeftover(processFile, stopSignals);
  const child = await startChild(process.execPath, ['--enable-source-maps', path.join(root, spec.entry)], {
    env: spec.env,
    cwd: root,
    whenParentDies: 'TERM',
    onLine: (line) => output.pass(spec.name, line),
  });
  noteProcess(processFile, child.identity);
  const stop = async () => {
    await endProcess(child.identity, stopSignals);
    await child.exited;
  };
  for (const until = performance.now() + readyTimeoutMs; ; await sleep(pollMs)) {
    if (child.ended()) {
      const { code, signal: by } = await child.exited;
      throw new Error(`${spec.name} exited before it was ready (${by ?? `code ${code}`})`);
    }
    const notReady = await whyNotReady(spec.readyUrl);
    if (notReady === null) return { pid: child.pid, exited: child.exited, stop };
    if (signal.aborted || performance.now() > until) {
      await stop();
      throw new Error(
        signal.aborted ? 'stopped' : `${spec.name} was not ready within ${readyTimeoutMs / 1000} s: ${notReady}`,
      );
    }
  }
}

/** The service's reason for not being ready; `null` when it is ready. */
async function whyNotReady(url: string): Promise<string | null> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(2_000) });
    const text = await response.text();
    return response.ok ? null : `${url} returned ${response.status} ${text.slice(0, 300)}`;
  } catch (error) {
    return `${url} cannot be reached (${(error as Error).message})`;
  }
}

/**
 * Runs a program to its end and passes on its output.
 *
 * @throws Error when it does not exit with 0
 */
export async function runToEnd(root: string, spec: Omit<ServiceSpec, 'readyUrl'>, output: Output): Promise<void> {
  const child = await startChild(process.execPath, ['--enable-source-maps', path.join(root, spec.entry)], {
    env: spec.env,
    cwd: root,
    whenParentDies: 'TERM',
    onLine: (line) => output.pass(spec.name, line),
  });
  const { code, signal } = await child.exited;
  if (code !== 0) throw new Error(`${spec.name} failed (${signal ?? `code ${code}`}), see above`);
}
