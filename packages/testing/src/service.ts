import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { waitFor } from './wait-for.js';

export interface SpawnServiceOptions {
  /** The URL that returns 200 once the service is ready, `http://127.0.0.1:<ops port>/readyz` as a rule. */
  readyUrl?: string;
  /** Or a text that it prints when it is ready. */
  readyText?: string;
  /** Default 30 000. */
  readyTimeoutMs?: number;
  args?: string[];
}

/** A service as a process of its own. */
export interface RunningService extends AsyncDisposable {
  readonly pid: number;
  /** How it exited; fulfilled once it has. */
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  /** All that it printed so far. */
  logs(): string;
  /** Kills it, as a crash does (or sends another signal), and waits for its exit. */
  kill(signal?: NodeJS.Signals): Promise<void>;
  /** Freezes it: sockets stay open and get no response. */
  pause(): void;
  resume(): void;
  /** Sends SIGTERM, and SIGKILL after `patienceMs` (default 10 000) if it still runs; harmless when repeated. */
  stop(patienceMs?: number): Promise<void>;
}

/**
 * Starts a built service as a child process and waits until it is ready. It gets the environment given here and
 * nothing of this process's own but PATH and HOME.
 *
 * @param entry path of the JavaScript file
 * @throws when it exits or times out before it is ready, with the last of what it printed
 */
export async function spawnService(
  entry: string,
  env: Record<string, string>,
  options: SpawnServiceOptions = {},
): Promise<RunningService> {
  const child = spawn(process.execPath, [entry, ...(options.args ?? [])], {
    env: { PATH: process.env['PATH'], HOME: process.env['HOME'], ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let logs = '';
  let ended = false;
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      logs += chunk;
    });
  }
  const exited = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => {
    child.once('exit', (code, signal) => {
      ended = true;
      resolve({ code, signal });
    });
  });
  // An aborted test run leaves no service behind.
  const killWithParent = () => child.kill('SIGKILL');
  process.once('exit', killWithParent);
  void exited.then(() => process.off('exit', killWithParent));

  const kill = async (signal: NodeJS.Signals = 'SIGKILL') => {
    if (!ended) child.kill(signal);
    await exited;
  };
  const stop = async (patienceMs = 10_000) => {
    if (ended) return;
    child.kill('SIGCONT');
    const giveUp = setTimeout(() => child.kill('SIGKILL'), patienceMs);
    await kill('SIGTERM');
    clearTimeout(giveUp);
  };
  const isReady = async () => {
    if (ended) return true;
    if (options.readyText !== undefined && !logs.includes(options.readyText)) return false;
    if (!options.readyUrl) return true;
    const response = await fetch(options.readyUrl, { signal: AbortSignal.timeout(2_000) });
    await response.body?.cancel();
    return response.ok;
  };
  try {
    await once(child, 'spawn');
    await waitFor(isReady, {
      timeoutMs: options.readyTimeoutMs ?? 30_000,
      intervalMs: 50,
      what: `${entry} being ready`,
    });
    if (ended && (options.readyUrl || options.readyText)) throw new Error(`${entry} exited before it was ready`);
  } catch (cause) {
    await stop(1_000);
    throw new Error(`${(cause as Error).message}; it printed:\n${logs.slice(-4_000)}`, { cause });
  }
  return {
    pid: child.pid as number,
    exited,
    logs: () => logs,
    kill,
    pause: () => void child.kill('SIGSTOP'),
    resume: () => void child.kill('SIGCONT'),
    stop,
    [Symbol.asyncDispose]: () => stop(),
  };
}
