import type { LookupFunction } from 'node:net';
import { expect, test } from '@jest/globals';
import { LOOKUP_JOIN_MS, sharedLookup } from '../src/engine/lookup.js';

type Answer = Parameters<Parameters<typeof sharedLookup>[0] & object>[2];

/** A resolver that answers when it is told to, and what each connection has heard. */
function resolver() {
  let nowMs = 0;
  const asked: { name: string; answer: Answer }[] = [];
  const find = sharedLookup(
    (name, _, answer) => void asked.push({ name, answer }),
    () => nowMs,
  );
  const connect = (name: string, options: Parameters<LookupFunction>[1] = { all: true }) =>
    new Promise<string | undefined>((resolve) => {
      find(name, options, (error, address) => resolve(error ? (error.code ?? 'failed') : JSON.stringify(address)));
    });
  const pass = (ms: number) => {
    nowMs += ms;
  };
  return { asked, connect, pass };
}

test('a name is looked up once for all connections that wait for it, and again for the next', async () => {
  const { asked, connect } = resolver();
  const both = [connect('one'), connect('one')];
  expect(asked.map(({ name }) => name)).toEqual(['one']);
  asked[0]!.answer(null, [{ address: '192.0.2.1', family: 4 }]);
  expect(await Promise.all(both)).toEqual(Array(2).fill('[{"address":"192.0.2.1","family":4}]'));
  const third = connect('one');
  expect(asked).toHaveLength(2);
  asked[1]!.answer(Object.assign(new Error('no such name'), { code: 'ENOTFOUND' }), []);
  expect(await third).toBe('ENOTFOUND');
});

test('a name whose lookup hangs occupies one lookup, and connections to it fail at once when it has taken too long', async () => {
  const { asked, connect, pass } = resolver();
  const first = connect('hangs');
  pass(LOOKUP_JOIN_MS);
  expect(await Promise.all(Array.from({ length: 1_000 }, () => connect('hangs')))).toEqual(
    Array(1_000).fill('EAI_AGAIN'),
  );
  const other = connect('another');
  expect(asked.map(({ name }) => name)).toEqual(['hangs', 'another']);
  asked[1]!.answer(null, []);
  expect(await other).toBe('[]');
  asked[0]!.answer(null, []);
  expect(await first).toBe('[]');
});

test('connections that want one address and those that want all are looked up apart', () => {
  const { asked, connect } = resolver();
  void connect('one', { all: true });
  void connect('one', { all: false });
  expect(asked).toHaveLength(2);
});
