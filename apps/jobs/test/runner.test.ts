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

/** A job whose steps wait until they are let go. */
function held(more: Partial<Job> = {}) {
  const waiting: (() => void)[] = [];
  const job: Job = {
    name: `held ${Math.random()}`,
    queue: 'tokens',
    everyMs: 1_000,
    description: '',
    step: async () => {
      await new Promise<void>((resolve) => waiting.push(resolve));
      return { done: 1, more: false };
    },
    ...more,
  };
  const letGo = () => {
    for (const go of waiting.splice(0)) go();
  };
  return { job, waiting, letGo };
}

const runnerOf = async (job: Job) => new JobRunner(await world.contextWith(), () => job);
const nothingDone = { done: 0, steps: 0 };

test('a long run of a job takes no place from others: asked for again meanwhile, it ends at once', async () => {
  const { job, waiting, letGo } = held();
  const runner = await runnerOf(job);
  const first = runner.run(job.name);
  await waitFor(async () => waiting.length === 1);
  expect(await runner.run(job.name)).toEqual(nothingDone);
  letGo();
  expect(await first).toEqual({ done: 1, steps: 1 });
  const again = runner.run(job.name);
  await waitFor(async () => waiting.length === 1);
  letGo();
  expect(await again).toEqual({ done: 1, steps: 1 });
});

test('a job runs as often at one time as it says', async () => {
  const { job, waiting, letGo } = held({ parallel: 2 });
  const runner = await runnerOf(job);
  const runs = [runner.run(job.name), runner.run(job.name)];
  await waitFor(async () => waiting.length === 2);
  expect(await runner.run(job.name)).toEqual(nothingDone);
  letGo();
  await Promise.all(runs);
});

test('a job that rests runs in one worker at a time, and in another once that one has ended', async () => {
  const { job, waiting, letGo } = held({ rest: 1 });
  const [one, other] = [await runnerOf(job), await runnerOf(job)];
  const first = one.run(job.name);
  await waitFor(async () => waiting.length === 1);
  expect(await other.run(job.name)).toEqual(nothingDone);
  letGo();
  await first;
  const second = other.run(job.name);
  await waitFor(async () => waiting.length === 1);
  letGo();
  expect(await second).toEqual({ done: 1, steps: 1 });
});

test('a job that rests is another worker’s as soon as its own lost its connection', async () => {
  const { job, waiting, letGo } = held({ rest: 1 });
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
  letGo();
  await expect(cut).rejects.toThrow();
  expect(await second.run).toEqual({ done: 1, steps: 1 });
});

test('a run that failed leaves its place', async () => {
  let broken = true;
  const job: Job = {
    ...held({ rest: 1 }).job,
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
