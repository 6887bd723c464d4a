import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { processIdentity, stillRuns } from '@latchkey/local-stack';
import { waitFor } from '@latchkey/testing';

let dir: string;
let npm: ChildProcess;

beforeEach(() => {
  dir = mkdtempSync(path.join(tmpdir(), 'latchkey-parents-'));
  const watcher = path.join(import.meta.dirname, '..', 'lib', 'parents.mjs');
  const program = `import { writeFileSync } from 'node:fs';
    import { watchNpm } from ${JSON.stringify(watcher)};
    watchNpm(() => { writeFileSync('gone', ''); process.exit(0); });
    setInterval(() => {}, 1000);
    writeFileSync('pid', String(process.pid));`;
  writeFileSync(path.join(dir, 'program.mjs'), program);
  writeFileSync(path.join(dir, 'package.json'), JSON.stringify({ scripts: { start: 'node program.mjs' } }));
  npm = spawn('npm', ['start'], { cwd: dir, stdio: 'ignore' });
});
afterEach(() => {
  npm.kill('SIGKILL');
  rmSync(dir, { recursive: true, force: true });
});

test.each(['SIGTERM', 'SIGKILL'] as const)(
  'a program detects that the npm that runs it was ended by %s',
  async (signal) => {
    const pid = await waitFor(() => Number(readFileSync(path.join(dir, 'pid'), 'utf8')), { timeoutMs: 60_000 });
    const program = processIdentity(pid) as string;
    npm.kill(signal);
    await waitFor(() => !stillRuns(program), { timeoutMs: 60_000, what: 'the program ending' });
    expect(readFileSync(path.join(dir, 'gone'), 'utf8')).toBe('');
  },
);
