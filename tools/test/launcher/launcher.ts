import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { processIdentity } from '@latchkey/local-stack';
import { waitFor } from '@latchkey/testing';

export interface Ready {
  url: string;
  databaseUrl: string;
  redisUrl: string;
  adminPassword: string;
  pids: Record<'tokenService' | 'gateway' | 'jobs' | 'postgres' | 'redis', number | null>;
}

/** Any free ports, to avoid conflicts with other launchers on this machine. */
export const anyPorts = Object.fromEntries(
  ['PORT', 'OPS_PORT', 'API_PORT', 'RPC_PORT', 'AUTHZ_PORT', 'DEMO_PORT'].map((name) => [name, '0']),
);

/** Runs the launcher as a process, like `npm start`. */
export function launch(root: string, env: Record<string, string> = {}) {
  const main = path.join(import.meta.dirname, '..', '..', 'dist', 'main.js');
  const child = spawn(process.execPath, [main, root], {
    env: {
      PATH: process.env['PATH'],
      HOME: process.env['HOME'],
      XDG_STATE_HOME: path.join(root, 'state'),
      CI: 'true',
      ...anyPorts,
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    detached: true,
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (chunk: string) => {
      output += chunk;
    });
  }
  // Not 'close', which is never emitted once this side has closed the channel.
  const outputs = [child.stdout, child.stderr].map(
    (stream) => new Promise((resolve) => stream?.once('close', resolve)),
  );
  const exit = new Promise<number | null>((resolve) => child.once('exit', resolve));
  const ended = Promise.all([exit, ...outputs]).then(([code]) => code);
  let over = false;
  void ended.then(() => {
    over = true;
  });
  const file = path.join(root, '.latchkey', 'ready.json');
  return {
    output: () => output,
    ended,
    kill: (signal: NodeJS.Signals) => child.kill(signal),
    /** Like killing the process that started it. */
    abandon: () => child.disconnect(),
    ready: async (): Promise<Ready> => {
      await waitFor(() => over || /^ready http/m.test(output), {
        timeoutMs: 150_000,
        what: 'the launcher being ready',
      });
      if (over) throw new Error(`the launcher ended: ${output}`);
      return JSON.parse(readFileSync(file, 'utf8')) as Ready;
    },
    now: () => JSON.parse(readFileSync(file, 'utf8')) as Ready,
  };
}

/** Identities of the running processes in ready.json, because pids can be reused. */
export function identities(ready: Ready): string[] {
  const pids = Object.values(ready.pids).filter((pid) => pid !== null);
  return pids.map((pid) => processIdentity(pid)).filter((identity) => identity !== null);
}
