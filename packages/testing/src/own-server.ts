import { execFileSync } from 'node:child_process';
import { appendFileSync, chmodSync, cpSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type Postgres, startPostgres } from '@latchkey/local-stack';
import { Client } from 'pg';
import { waitFor } from './wait-for.js';

/** A PostgreSQL of the test's own that can be stopped, copied, put back, and followed by a stand-by. */
export interface OwnServer extends AsyncDisposable {
  readonly url: string;
  /** The folder of its data and its password. */
  readonly dir: string;
  query(text: string): Promise<Record<string, unknown>[]>;
  stop(): Promise<void>;
  /** Starts it again at the same port. */
  start(): Promise<void>;
  /** Copies the data folder of the stopped server. */
  copy(): string;
  /** Puts a copy in the place of the data folder of the stopped server. */
  putBack(copy: string): void;
  /** Starts a stand-by for which every commit waits from now on. The server is restarted for it. */
  standBy(): Promise<StandBy>;
  close(): Promise<void>;
}

export interface StandBy {
  readonly url: string;
  /** Makes it a primary; the other one runs on and is not notified. */
  promote(): Promise<void>;
}

/**
 * Starts a server of the test's own, which flushes and replicates as in production.
 * @param made migrates a new one; or a stopped server, or a folder as a server has it, that this one starts as a copy of
 */
export async function ownServer(made: ((url: string) => Promise<void>) | Pick<OwnServer, 'dir'>): Promise<OwnServer> {
  const root = mkdtempSync(path.join(tmpdir(), 'latchkey-server-'));
  chmodSync(root, 0o711);
  const closing: (() => Promise<void>)[] = [];
  const dirOf = (name: string) => path.join(root, name);
  const launch = async (name: string, port?: number): Promise<Postgres> => {
    mkdirSync(dirOf(name), { recursive: true });
    return startPostgres({ dir: dirOf(name), connectionsMax: 60, ...(port !== undefined && { port }) });
  };
  if (typeof made !== 'function') execFileSync('cp', ['-a', made.dir, dirOf('a')]);
  let server = await launch('a');
  const { url, port, dataDir } = server;
  const stop = async () => server.stop();
  closing.push(stop);
  const close = async () => {
    for (const end of closing.splice(0).reverse()) await end();
    rmSync(root, { recursive: true, force: true });
  };
  const start = async () => {
    server = await launch('a', port);
  };
  const copyTo = (to: string) => {
    execFileSync('cp', ['-a', dataDir, to]);
    return to;
  };
  let copies = 0;
  try {
    if (typeof made === 'function') await made(url);
  } catch (error) {
    await close();
    throw error;
  }
  return {
    url,
    dir: dirOf('a'),
    query: (text) => queryAt(url, text),
    stop,
    start,
    copy: () => copyTo(dirOf(`copy-${++copies}`)),
    putBack: (copy) => {
      rmSync(dataDir, { recursive: true });
      execFileSync('cp', ['-a', copy, dataDir]);
    },
    standBy: async () => {
      appendFileSync(path.join(dataDir, 'pg_hba.conf'), 'host replication all 127.0.0.1/32 scram-sha-256\n');
      await stop();
      mkdirSync(dirOf('b'));
      chmodSync(dirOf('b'), 0o711);
      const data = copyTo(path.join(dirOf('b'), 'data'));
      cpSync(path.join(dirOf('a'), 'password'), path.join(dirOf('b'), 'password'));
      const { password, username } = new URL(url);
      const from = `host=127.0.0.1 port=${port} user=${username} password=${decodeURIComponent(password)} application_name=b`;
      writeAs(data, 'postgresql.auto.conf', `primary_conninfo = '${from}'\n`);
      writeAs(data, 'standby.signal', '');
      await start();
      const second = await launch('b');
      closing.push(() => second.stop());
      await queryAt(url, `ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (b)'`);
      await queryAt(url, 'SELECT pg_reload_conf()');
      await waitFor(
        async () =>
          (await queryAt(url, `SELECT 1 FROM pg_stat_replication WHERE sync_state = 'quorum' AND state = 'streaming'`))
            .length > 0,
      );
      return { url: second.url, promote: async () => void (await queryAt(second.url, 'SELECT pg_promote()')) };
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** Writes a file of the data folder, owned by the user that runs the server. */
function writeAs(dataDir: string, name: string, text: string): void {
  const file = path.join(dataDir, name);
  const { uid, gid } = statSync(dataDir);
  writeFileSync(file, text, { mode: 0o600 });
  if (process.getuid?.() === 0) execFileSync('chown', [`${uid}:${gid}`, file]);
}

async function queryAt(url: string, text: string): Promise<Record<string, unknown>[]> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query(text)).rows;
  } finally {
    await client.end();
  }
}
