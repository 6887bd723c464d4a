import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { findRedis, type Redis, startRedis } from '@latchkey/local-stack';

/** A Redis of one test file's own, which can be made to fail. It is empty after a restart. */
export interface TestRedis extends AsyncDisposable {
  /** The same over restarts. */
  readonly url: string;
  /** Ends the server at once, as a crash does. */
  kill(): Promise<void>;
  /** Starts the server again, empty, at the same address; one that still runs is killed first. */
  restart(): Promise<void>;
  /** Freezes the server: connections stay open and get no reply. */
  pause(): void;
  /** Ends a `pause()`. */
  resume(): void;
  /** Ends the server and leaves nothing behind. */
  close(): Promise<void>;
}

/**
 * Starts a private Redis on a free port. Close it in `afterAll`.
 * @param settings further lines of its configuration
 */
export async function testRedis(settings: readonly string[] = []): Promise<TestRedis> {
  const program = process.env['LATCHKEY_TEST_REDIS_SERVER'] || (await ownProgram());
  const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-redis-'));
  const start = (port?: number) =>
    startRedis({ dir, persistent: false, settings, ...(program && { program }), ...(port && { port }) });
  let server: Redis;
  try {
    server = await start();
  } catch (error) {
    rmSync(dir, { recursive: true, force: true });
    throw error;
  }
  const { url, port } = server;
  let running = true;
  const kill = async () => {
    if (!running) return;
    running = false;
    process.kill(server.pid, 'SIGKILL');
    await server.exited;
  };
  const close = async () => {
    await kill();
    rmSync(dir, { recursive: true, force: true });
  };
  return {
    url,
    kill,
    restart: async () => {
      await kill();
      server = await start(port);
      running = true;
    },
    pause: () => void process.kill(server.pid, 'SIGSTOP'),
    resume: () => void process.kill(server.pid, 'SIGCONT'),
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function ownProgram(): Promise<string | null> {
  const source = await findRedis();
  return source.kind === 'program' ? source.path : null;
}
