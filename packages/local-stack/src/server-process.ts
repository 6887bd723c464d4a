import { type ChildProcess, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { endProcess, processIdentity, stillRuns } from './process-identity.js';

/** How a server ended. */
export interface Exit {
  code: number | null;
  signal: NodeJS.Signals | null;
}

/** A database server that runs for this process. */
export interface LocalServer extends AsyncDisposable {
  /** With user and password; for this machine only. */
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** Fulfilled when the server has ended, by `stop()` or on its own; never rejected. */
  readonly exited: Promise<Exit>;
  /** Ends the server in order and waits until it has ended; harmless when repeated. */
  stop(): Promise<void>;
}

/** The port asked for belongs to someone else. */
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

/**
 * Below the ports that systems hand to outgoing connections (Linux 32768 and up, others 49152): a server that is away for
 * a moment finds its port again, and a client that tries it meanwhile cannot be given that very port and reach itself.
 */
const freePorts = { from: 10_000, to: 32_000 };

/** A port of 127.0.0.1 that was free a moment ago, drawn at random so that two who ask at once rarely meet. */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const port = randomInt(freePorts.from, freePorts.to);
    if (await canListen(port)) return port;
  }
  throw new Error(`found no free port between ${freePorts.from} and ${freePorts.to}`);
}

/** Whether a server could listen there now. */
export function canListen(port: number, host = '127.0.0.1'): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once('error', () => resolve(false));
    probe.listen(port, host, () => probe.close(() => resolve(true)));
  });
}

/** A child process with the last of what it said, for the message when it does not come up. */
export interface Child {
  readonly process: ChildProcess;
  readonly pid: number;
  readonly identity: string;
  readonly exited: Promise<Exit>;
  readonly ended: () => boolean;
  readonly lastWords: () => string;
}

const lastWordsMax = 4_000;
const setpriv = '/usr/bin/setpriv';

/**
 * Starts a server in a process group of its own, so that Ctrl-C in the terminal reaches whoever started it and not the
 * server, which is then stopped in order.
 *
 * @param options `onLine` is handed every line that the server prints; `whenParentDies` is the signal that Linux
 *   sends the server when this process ends in whatever way (elsewhere it makes no difference)
 * @throws when the program cannot be started at all
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
  let words = '';
  let over = false;
  for (const stream of [child.stdout, child.stderr]) {
    let rest = '';
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      words = (words + chunk).slice(-lastWordsMax);
      const lines = (rest + chunk).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) onLine?.(line);
    });
  }
  const exited = new Promise<Exit>((resolve) => {
    // 'close' may wait for a grandchild that holds the pipe; the server itself is over at 'exit'.
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
  return { process: child, pid, identity, exited, ended: () => over, lastWords: () => words.trim() };
}

/** Notes which process serves a folder, for whoever comes after a crash. */
export function noteProcess(file: string, identity: string): void {
  writeFileSync(file, identity, { mode: 0o600 });
}

/**
 * Ends the server that a crashed process left running for this folder, going by the note it left. A process that
 * merely has the same number now is left alone.
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
