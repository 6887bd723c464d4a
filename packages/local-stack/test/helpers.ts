import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Client } from 'pg';

/** A folder that PostgreSQL's own user can enter, and what removes it. */
export function temporaryFolder(): { dir: string; remove: () => void } {
  const dir = mkdtempSync(path.join(tmpdir(), 'latchkey-stack-'));
  chmodSync(dir, 0o711);
  return { dir, remove: () => rmSync(dir, { recursive: true, force: true }) };
}

/** Asks a PostgreSQL server one thing over a connection of its own. */
export async function ask(url: string, sql: string): Promise<Record<string, unknown>[]> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query(sql)).rows as Record<string, unknown>[];
  } finally {
    await client.end();
  }
}

/** The arguments and environment that every user of the machine, or the same user, may read of a process. */
export function visibleOf(pid: number, read: (file: string) => string): string {
  return read(`/proc/${pid}/cmdline`) + read(`/proc/${pid}/environ`);
}
