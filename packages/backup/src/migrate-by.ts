import { spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';
import type { RestoreTarget } from './restore.js';

/**
 * Migrates by running the token-service's program.
 * @param program apps/token-service/dist/migrate.js
 */
export function migrateBy(program: string, databaseUrl: string): RestoreTarget['migrate'] {
  return async (only) => {
    const args = [program, ...(only ? ['--only', only.join(',')] : [])];
    const env = { PATH: process.env['PATH'], DATABASE_URL: databaseUrl };
    const child = spawn(process.execPath, args, { env, stdio: ['ignore', 'pipe', 'inherit'] });
    const ended = new Promise<number | null>((resolve, reject) => child.once('error', reject).once('close', resolve));
    const [code, output] = await Promise.all([ended, text(child.stdout)]);
    if (code !== 0) throw new Error(reasonIn(output) ?? `migrating ended with code ${code}`);
  };
}

/** The message of the last line of a log. */
function reasonIn(log: string): string | undefined {
  const last = log.trim().split('\n').at(-1) ?? '';
  try {
    return (JSON.parse(last) as { msg?: string }).msg;
  } catch {
    return last || undefined;
  }
}
