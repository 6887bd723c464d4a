/**
 * The process that runs two PostgreSQLs for all tests of this clone outside `npm test`: parallel jest workers and
 * workspaces share it, the first user starts it, and it exits after its last user. A user is a connection to its socket,
 * so a crashed one no longer counts; the last one can send `leave` and wait for the exit. Started by shared-servers.ts:
 * `node keeper.js <dir> <socket>`.
 */
import { chmodSync, readdirSync, rmdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import { claimFolder, FolderInUse, findRedis, startPostgres } from '@latchkey/local-stack';

/** How long to wait for the next user: the time between two test files, or two runs by hand. */
const idleMsMax = 15_000;

async function run(dir: string, socket: string): Promise<void> {
  const claim = claimFolder(dir);
  rmSync(socket, { force: true });
  const log = (line: string) => console.log(line);
  const start = (name: string) =>
    startPostgres({ dir: path.join(dir, name), fast: true, fresh: true, connectionsMax: 400, log });
  // One after the other: the first fetches what is missing.
  const postgres = await start('postgres');
  const quiet = await start('quiet').catch(async (error: unknown) => {
    await postgres.stop();
    throw error;
  });
  const redis = await findRedis(log);
  const servers = JSON.stringify({
    databaseUrl: postgres.url,
    quietDatabaseUrl: quiet.url,
    redisProgram: redis.kind === 'program' ? redis.path : null,
  });

  let users = 0;
  let leaving: NodeJS.Timeout | undefined;
  let left = false;
  const leave = async () => {
    if (left) return;
    left = true;
    server.close();
    await Promise.all([postgres.stop(), quiet.stop()]);
    for (const entry of readdirSync(dir)) if (entry !== 'owner') rmSync(path.join(dir, entry), { recursive: true });
    rmSync(`${dir}.log`, { force: true });
    claim.release();
    try {
      rmdirSync(dir);
    } catch (error) {
      // The next keeper uses the folder already.
      if (!['ENOTEMPTY', 'ENOENT'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
    }
    process.exit(0);
  };
  const leaveWhenIdle = () => {
    clearTimeout(leaving);
    if (users === 0) leaving = setTimeout(leave, idleMsMax);
  };
  const server = createServer((connection) => {
    users++;
    clearTimeout(leaving);
    connection.on('error', () => connection.destroy());
    let counts = true;
    const uncount = () => {
      if (counts) users--;
      counts = false;
    };
    connection.on('close', () => {
      uncount();
      leaveWhenIdle();
    });
    connection.on('data', () => {
      uncount();
      if (users === 0) void leave();
      else connection.end();
    });
    connection.write(`${servers}\n`);
  });
  server.listen(socket, () => {
    chmodSync(socket, 0o600);
    leaveWhenIdle();
  });
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, leave);
  const exit = await Promise.race([postgres.exited, quiet.exited]);
  if (!left) throw new Error(`PostgreSQL exited by itself (${exit.signal ?? exit.code})`);
}

const [dir, socket] = process.argv.slice(2);
if (!dir || !socket) throw new Error('usage: node keeper.js <dir> <socket>');
try {
  await run(dir, socket);
} catch (error) {
  if (!(error instanceof FolderInUse)) {
    console.error(error);
    process.exit(1);
  }
}
