import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { endLeftover, endProcess, noteProcess, startChild } from '@latchkey/local-stack';
import type { Output } from './output.js';
import type { Running } from './watched.js';

/** One of Latchkey's own services, as the launcher starts it. */
export interface ServiceSpec {
  name: string;
  /** The built program, from the repository's folder. */
  entry: string;
  env: Record<string, string>;
  /** Answers 200 once the service is ready. */
  readyUrl: string;
}

/** Long enough for a machine that is busy with ten other things; a service that fails ends by itself, and sooner. */
const readyTimeoutMs = 180_000;
const pollMs = 50;
/** Services leave by themselves within 15 s of SIGTERM. */
const endings: [NodeJS.Signals, number][] = [
  ['SIGTERM', 17_000],
  ['SIGKILL', 5_000],
];

/**
 * Starts a service under the Node that runs now and waits until it is ready. It ends with this process where the system
 * can do that; one left over from a crash all the same is ended first.
 *
 * @param notes folder that remembers which process it is
 * @param signal ends it, also while it is starting
 * @throws when it ends, or a minute passes, before it is ready; what it printed has gone to `output`
 */
export async function startService(
  root: string,
  spec: ServiceSpec,
  notes: string,
  output: Output,
  signal: AbortSignal,
): Promise<Running> {
  const note = path.join(notes, spec.name);
  await endLeftover(note, endings);
  const child = await startChild(process.execPath, ['--enable-source-maps', path.join(root, spec.entry)], {
    env: spec.env,
    cwd: root,
    whenParentDies: 'TERM',
    onLine: (line) => output.pass(spec.name, line),
  });
  noteProcess(note, child.identity);
  const stop = async () => {
    await endProcess(child.identity, endings);
    await child.exited;
  };
  for (const until = performance.now() + readyTimeoutMs; ; await sleep(pollMs)) {
    if (child.ended()) {
      const { code, signal: by } = await child.exited;
      throw new Error(`${spec.name} ended before it was ready (${by ?? `code ${code}`})`);
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

/** What the service itself says it lacks; `null` when it is ready. */
async function whyNotReady(url: string): Promise<string | null> {
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(2_000) });
    const text = await answer.text();
    return answer.ok ? null : `${url} answers ${answer.status} ${text.slice(0, 300)}`;
  } catch (error) {
    return `${url} does not answer (${(error as Error).message})`;
  }
}

/**
 * Runs a program to its end, passing its lines on.
 *
 * @throws when it does not end with 0
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
