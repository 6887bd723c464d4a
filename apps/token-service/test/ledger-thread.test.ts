import { spawnSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { newId } from '@latchkey/runtime';
import { waitFor } from '@latchkey/testing';
import { LedgerThread, ThreadEnded } from '../src/ledger/thread.js';

const AT = new Date(1_800_000_000_000).toISOString();
const COMPARE = { marks: [], retainedSince: 0, key: 'a key', database: newId(), ignored: [], isAll: false };

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

/** A thread with an open ledger. Its time passes when a test says so. */
async function open() {
  const base = mkdtempSync(path.join(tmpdir(), 'latchkey-ledger-'));
  closing.push(() => rmSync(base, { recursive: true, force: true }));
  const timers = new Set<() => void>();
  const after = (_: number, callback: () => void) => {
    timers.add(callback);
    return () => void timers.delete(callback);
  };
  const thread = new LedgerThread({ after });
  closing.push(() => thread.stop());
  const folder = path.join(base, 'ledger');
  const ask = () =>
    thread.ask('open', { folder, key: 'a key', database: COMPARE.database, ledger: newId(), stream: newId(), at: AT });
  await ask();
  await thread.ask('append', { entries: [] });
  /**
   * A segment whose reading lasts until the test ends it, as on a disk that does not respond.
   * @returns resolves once the thread reads it, with what ends that
   */
  const stall = (): (() => Promise<() => void>) => {
    const file = path.join(folder, `${newId()}.000000`);
    expect(spawnSync('mkfifo', [file]).status).toBe(0);
    return async () => {
      // Fails while nobody reads it.
      let fd: number | undefined = await waitFor(() => openSync(file, constants.O_WRONLY | constants.O_NONBLOCK));
      rmSync(file);
      const end = () => {
        if (fd !== undefined) closeSync(fd);
        fd = undefined;
      };
      closing.push(end);
      return end;
    };
  };
  return { thread, timers, stall, ask };
}

it('a comparison, and what waits behind it, may take as long as its disk responds', async () => {
  const { thread, timers, stall } = await open();
  const stalled = [stall(), stall(), stall()];
  const asked = Promise.all([thread.ask('compare', COMPARE), thread.ask('append', { entries: [] })]);
  for (const reached of stalled) {
    const end = await reached();
    const before = [...timers];
    expect(before).toHaveLength(1);
    end();
    await waitFor(() => !timers.has(before[0]!));
  }
  expect(await asked).toEqual([[expect.objectContaining({ isOwn: true })], expect.objectContaining({ sequence: 0 })]);
  expect(timers.size).toBe(0);
});

it('a thread that is blocked in the file system is given up at once, and another is begun when it has ended', async () => {
  const { thread, timers, stall, ask } = await open();
  const reached = stall();
  const asked = [thread.ask('compare', COMPARE), thread.ask('append', { entries: [] })];
  const ended = Promise.all(asked.map((one) => expect(one).rejects.toBeInstanceOf(ThreadEnded)));
  const end = await reached();
  for (const pass of timers) pass();
  await ended;
  await expect(ask()).rejects.toThrow('does not respond');
  end();
  const opened = await waitFor(() => ask().catch(() => null));
  expect(opened).toMatchObject({ ledger: expect.any(String) });
});
