import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { endProcess, processIdentity, stillRuns } from './process-identity.js';

/** How a server ended. */
export interface Exit {
  code: number | null;
  signal: NodeJS.Signals | null;
}

/** A database server that runs for this process. */
export interface LocalServer extends AsyncDisposable {
  /** Includes user and password; reachable from this machine only. */
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** Resolves when the server has exited, by `stop()` or by itself; never rejects. */
  readonly exited: Promise<Exit>;
  /** Stops the server in order and waits until it has exited; idempotent. */
  stop(): Promise<void>;
}

/** Another program listens on the port. */
export class PortTaken extends Error {
  override readonly name = 'PortTaken';
  constructor(
    readonly server: string,
    readonly port: number,
  ) {
    super(
      `${server} cannot listen on 127.0.0.1:${port}, another program does; choose another port or stop that program`,
    );
  }
}

/** A child process with the end of its output, for the error message when it does not start. */
export interface Child {
  readonly process: ChildProcess;
  readonly pid: number;
  readonly identity: string;
  readonly exited: Promise<Exit>;
  readonly ended: () => boolean;
  readonly lastOutput: () => string;
}

const lastOutputMax = 4_000;
const setpriv = '/usr/bin/setpriv';

/**
 * Starts a server in its own process group, so that Ctrl-C in the terminal reaches only the program that started it, which
 * then stops the server in order.
 *
 * @param options `onLine` is called with every line that the server prints; `whenParentDies` is the signal that Linux
 *   sends the server when this process ends (no effect elsewhere)
 * @throws Error when the program cannot be started
 */
export async function startChild(
  command: string,
  args: string[],
  options: {
    env?: NodeJS.ProcessEnv;
    uid?: number;
    gid?: number;
    cwd?: string;
    whenParentDies?: 'INT' | 'TERM' | 'KILL';
    onLine?: (line: string) => void;
  },
): Promise<Child> {
  const { onLine, whenParentDies, ...spawnOptions } = options;
  const tied = whenParentDies && existsSync(setpriv);
  const [program, all] = tied ? [setpriv, ['--pdeathsig', whenParentDies, '--', command, ...args]] : [command, args];
  const child = spawn(program, all, { ...spawnOptions, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  let output = '';
  let over = false;
  for (const stream of [child.stdout, child.stderr]) {
    let rest = '';
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      output = (output + chunk).slice(-lastOutputMax);
      const lines = (rest + chunk).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) onLine?.(line);
    });
  }
  const exited = new Promise<Exit>((resolve) => {
    // 'close' can wait for a grandchild with the pipe open; the server itself has ended at 'exit'.
    child.once('exit', (code, signal) => {
      over = true;
      resolve({ code, signal });
    });
  });
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', reject);
  });
  const pid = child.pid as number;
  const identity = processIdentity(pid) ?? `${pid} ended`;
  return { process: child, pid, identity, exited, ended: () => over, lastOutput: () => output.trim() };
}

/** Stores the identity of the process that serves a folder, for `endLeftover` after a crash. */
export function noteProcess(file: string, identity: string): void {
  writeFileSync(file, identity, { mode: 0o600 });
}

/**
 * Ends the server that a crashed process left running for this folder, by the file of `noteProcess`. A process that has
 * reused the pid is not touched.
 *
 * @returns whether there was one
 */
export async function endLeftover(file: string, signals: [NodeJS.Signals, number][]): Promise<boolean> {
  let identity: string;
  try {
    identity = readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
  const found = stillRuns(identity);
  if (found) await endProcess(identity, signals);
  rmSync(file, { force: true });
  return found;
}
