/**
 * The process that keeps two PostgreSQLs for all tests that run by hand in this clone: parallel jest workers and
 * workspaces share it, whoever comes first starts it, and it goes when its last user has gone. A user is a connection
 * to its socket, so one that crashes is gone too; one that says `leave` waits for the end where it was the last. Started by shared-servers.ts: `node keeper.js <dir> <socket>`.
 */
import { chmodSync, readdirSync, rmdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import { claimFolder, FolderInUse, findRedis, startPostgres } from '@latchkey/local-stack';

/** How long to stay for the next user: the time between two test files, or two runs of an eager person. */
const idleMsMax = 15_000;

async function keep(dir: string, socket: string): Promise<void> {
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
  const welcome = JSON.stringify({
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
    door.close();
    await Promise.all([postgres.stop(), quiet.stop()]);
    for (const entry of readdirSync(dir)) if (entry !== 'owner') rmSync(path.join(dir, entry), { recursive: true });
    rmSync(`${dir}.log`, { force: true });
    claim.release();
    try {
      rmdirSync(dir);
    } catch (error) {
      // The next keeper has moved in already.
      if (!['ENOTEMPTY', 'ENOENT'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
    }
    process.exit(0);
  };
  const leaveWhenIdle = () => {
    clearTimeout(leaving);
    if (users === 0) leaving = setTimeout(leave, idleMsMax);
  };
  const door = createServer((connection) => {
    users++;
    clearTimeout(leaving);
    connection.on('error', () => connection.destroy());
    let counts = true;
    const goes = () => {
      if (counts) users--;
      counts = false;
    };
    connection.on('close', () => {
      goes();
      leaveWhenIdle();
    });
    connection.on('data', () => {
      goes();
      if (users === 0) void leave();
      else connection.end();
    });
    connection.write(`${welcome}\n`);
  });
  door.listen(socket, () => {
    chmodSync(socket, 0o600);
    leaveWhenIdle();
  });
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, leave);
  const exit = await Promise.race([postgres.exited, quiet.exited]);
  if (!left) throw new Error(`PostgreSQL ended by itself (${exit.signal ?? exit.code})`);
}

const [dir, socket] = process.argv.slice(2);
if (!dir || !socket) throw new Error('usage: node keeper.js <dir> <socket>');
try {
  await keep(dir, socket);
} catch (error) {
  if (!(error instanceof FolderInUse)) {
    console.error(error);
    process.exit(1);
  }
}
