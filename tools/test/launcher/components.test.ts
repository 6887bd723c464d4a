import { expect, test } from '@jest/globals';
import { waitFor } from '@latchkey/testing';
import { createOutput } from '../../src/output.js';
import { type Running, SupervisedProcess } from '../../src/supervised-process.js';

function lines(terminal: boolean, level = 'info') {
  let text = '';
  const output = createOutput(
    (part) => {
      text += part;
    },
    { terminal, level },
  );
  return { output, text: () => text };
}

const entry = (fields: object) =>
  JSON.stringify({ time: '2026-01-02T03:04:05.678Z', level: 'warn', msg: 'slow', ...fields });

test('without a terminal, a JSON line of a service becomes one plain line', () => {
  const { output, text } = lines(false);
  output.pass('gateway', entry({ service: 'gateway', pid: 7, route: 'demo', ms: 12, req: { url: '/a b' } }));
  expect(text()).toBe('2026-01-02T03:04:05.678Z warn  gateway       slow route=demo ms=12 req={"url":"/a b"}\n');
});

test('checkpoints of the audit log are not for people: they are shown with LOG_LEVEL debug only', () => {
  for (const [level, isShown] of [
    ['info', false],
    ['debug', true],
  ] as const) {
    const { output, text } = lines(false, level);
    output.pass('token-service', entry({ level: 'info', msg: 'audit checkpoint' }));
    expect(text() !== '').toBe(isShown);
  }
});

test('on a terminal times are short and levels coloured', () => {
  const { output, text } = lines(true);
  output.pass('gateway', entry({}));
  expect(text()).toBe('\u001b[90m03:04:05\u001b[0m \u001b[33mwarn \u001b[0m gateway       slow\n');
});

test('text that is not JSON is unchanged, and an error is shown with its stack', () => {
  const { output, text } = lines(false);
  output.pass('jobs', '{ not JSON');
  output.pass('jobs', '');
  output.pass('jobs', entry({ err: { message: 'no', stack: 'Error: no\n    at here' } }));
  expect(text().split('\n')[0]).toMatch(/Z info {2}jobs {10}\{ not JSON$/);
  expect(text()).toContain('slow \n    Error: no\n        at here\n');
});

test('output of the databases is shown at debug only', () => {
  const [quiet, loud] = [lines(false), lines(false, 'debug')];
  for (const { output } of [quiet, loud]) output.detail('postgres', 'checkpoint starting');
  expect(quiet.text()).toBe('');
  expect(loud.text()).toContain('postgres      checkpoint starting');
});

/** Fake processes that end on `end()`; with `fail`, starts fail. */
function processes() {
  const state = { starts: 0, fail: false, end: () => undefined as undefined };
  const start = async (): Promise<Running> => {
    state.starts++;
    if (state.fail) throw new Error('no port');
    let end: (how: { code: number; signal: null }) => void = () => undefined;
    const exited = new Promise<{ code: number; signal: null }>((resolve) => {
      end = resolve;
    });
    state.end = () => void end({ code: 1, signal: null }) as undefined;
    return { pid: state.starts, exited, stop: async () => end({ code: 0, signal: null }) };
  };
  return { state, start };
}

test('a process that exits by itself is restarted until it is ready, with a message each time', async () => {
  const { state, start } = processes();
  const reported: string[] = [];
  let changes = 0;
  const supervised = new SupervisedProcess(
    'thing',
    start,
    (line) => reported.push(line),
    () => changes++,
  );
  await supervised.start();
  state.fail = true;
  state.end();
  await waitFor(() => state.starts >= 3, { what: 'more attempts' });
  expect(supervised.running).toBeUndefined();
  state.fail = false;
  await waitFor(() => changes === 1, { what: 'it being ready again' });
  expect(supervised.running?.pid).toBe(state.starts);
  expect(reported[0]).toBe('thing exited (code 1); restarting');
  expect(reported).toContain('starting thing failed: no port; retrying');
  expect(reported.at(-1)).toBe('thing is ready again');
  await supervised.stop();
});

test('a stopped process stays stopped, also while it waits for its next start', async () => {
  const { state, start } = processes();
  const supervised = new SupervisedProcess('thing', start, () => undefined);
  await supervised.start();
  await supervised.stop();
  expect(state.starts).toBe(1);

  const failing = processes();
  const second = new SupervisedProcess('thing', failing.start, () => undefined);
  await second.start();
  failing.state.fail = true;
  failing.state.end();
  await waitFor(() => failing.state.starts === 2, { what: 'an attempt' });
  await second.stop();
  const { starts } = failing.state;
  await new Promise((resolve) => setTimeout(resolve, 700));
  expect(failing.state.starts).toBe(starts);
});

test('a first start that fails is not retried', async () => {
  const { state, start } = processes();
  state.fail = true;
  await expect(new SupervisedProcess('thing', start, () => undefined).start()).rejects.toThrow('no port');
  expect(state.starts).toBe(1);
});
