import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { waitFor } from '@latchkey/testing';
import { type Job, NOTHING } from '../src/job.js';
import { JobRunner } from '../src/runner.service.js';
import { World } from './world.js';

let world: World;
beforeAll(async () => {
  world = await World.start();
});
afterAll(() => world[Symbol.asyncDispose]());

/** A job whose steps wait for `finish()`. */
function blockedJob(more: Partial<Job> = {}) {
  const waiting: (() => void)[] = [];
  const job: Job = {
    name: `blocked ${Math.random()}`,
    queue: 'tokens',
    everyMs: 1_000,
    description: '',
    step: async () => {
      await new Promise<void>((resolve) => waiting.push(resolve));
      return { done: 1, more: false };
    },
    ...more,
  };
  const finish = () => {
    for (const go of waiting.splice(0)) go();
  };
  return { job, waiting, finish };
}

const runnerOf = async (job: Job) => new JobRunner(await world.contextWith(), () => job);
const nothingDone = { done: 0, steps: 0 };

test('a job that is still running is not run again: the further run ends at once', async () => {
  const { job, waiting, finish } = blockedJob();
  const runner = await runnerOf(job);
  const first = runner.run(job.name);
  await waitFor(async () => waiting.length === 1);
  expect(await runner.run(job.name)).toEqual(nothingDone);
  finish();
  expect(await first).toEqual({ done: 1, steps: 1 });
  const again = runner.run(job.name);
  await waitFor(async () => waiting.length === 1);
  finish();
  expect(await again).toEqual({ done: 1, steps: 1 });
});

test('a job has at most `parallel` concurrent runs', async () => {
  const { job, waiting, finish } = blockedJob({ parallel: 2 });
  const runner = await runnerOf(job);
  const runs = [runner.run(job.name), runner.run(job.name)];
  await waitFor(async () => waiting.length === 2);
  expect(await runner.run(job.name)).toEqual(nothingDone);
  finish();
  await Promise.all(runs);
});

test('a job with `rest` runs in one worker at a time, and in another once that run has ended', async () => {
  const { job, waiting, finish } = blockedJob({ rest: 1 });
  const [one, other] = [await runnerOf(job), await runnerOf(job)];
  const first = one.run(job.name);
  await waitFor(async () => waiting.length === 1);
  expect(await other.run(job.name)).toEqual(nothingDone);
  finish();
  await first;
  const second = other.run(job.name);
  await waitFor(async () => waiting.length === 1);
  finish();
  expect(await second).toEqual({ done: 1, steps: 1 });
});

test('another worker can run a job with `rest` as soon as its worker has lost the connection', async () => {
  const { job, waiting, finish } = blockedJob({ rest: 1 });
  const runner = await runnerOf(job);
  const cut = runner.run(job.name);
  await waitFor(async () => waiting.length === 1);
  await world.database.query(
    `SELECT pg_terminate_backend(pid) FROM pg_locks
     WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
  );
  const other = await runnerOf(job);
  const second = await waitFor(async () => {
    const run = other.run(job.name);
    await Promise.race([run, sleep(50)]);
    return waiting.length === 2 ? { run } : null;
  });
  finish();
  await expect(cut).rejects.toThrow();
  expect(await second.run).toEqual({ done: 1, steps: 1 });
});

test('a failed run does not block the next one', async () => {
  let broken = true;
  const job: Job = {
    ...blockedJob({ rest: 1 }).job,
    step: async () => {
      if (broken) throw new Error('broken');
      return NOTHING;
    },
  };
  const runner = await runnerOf(job);
  await expect(runner.run(job.name)).rejects.toThrow('broken');
  broken = false;
  expect(await runner.run(job.name)).toEqual({ done: 0, steps: 1 });
});
