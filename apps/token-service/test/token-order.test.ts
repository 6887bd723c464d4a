import type { Token } from '@latchkey/contracts';
import { issue, type Person, type World, world } from './harness.js';

let w: World;
let ada: Person;
let names: string[];
beforeAll(async () => {
  w = await world();
  ada = await w.member('Ada');
  // Some names and expiries are equal: the id must break ties.
  const wanted: [name: string, expiresInSeconds?: number][] = [
    ['beta', 4_000],
    ['Alpha'],
    ['émile', 2_000],
    ['alpha', 9_000],
    ['gamma'],
    ['Beta', 3_000],
    ['alpha', 1_000],
  ];
  for (const [name, expiresInSeconds] of wanted)
    await issue(ada, { name, ...(expiresInSeconds && { expiresInSeconds }) });
  names = wanted.map(([name]) => name);
});
afterAll(() => w.close());

/** The whole list in pages of two, as a client reads it. */
async function read(person: Person, query: Record<string, string>): Promise<Token[]> {
  const items: Token[] = [];
  for (let cursor: string | null | undefined; cursor !== null; ) {
    const { status, body } = await person.call<{ items: Token[]; nextCursor: string | null }>('/v1/tokens', {
      query: { limit: '2', ...query, ...(cursor && { cursor }) },
    });
    expect(status).toBe(200);
    items.push(...body.items);
    cursor = body.nextCursor;
  }
  return items;
}

const expiryOf = ({ expiresAt }: Token) => (expiresAt === null ? Number.POSITIVE_INFINITY : Date.parse(expiresAt));
const rising = (values: (string | number)[]) => values.every((value, i) => i === 0 || values[i - 1]! <= value);

describe.each(['a person who lists their own tokens', 'an administrator who lists all tokens'])('for %s', (who) => {
  const reader = () => (who.includes('administrator') ? w.signIn() : Promise.resolve(ada));

  test('tokens are listed by name, expiry or time, in either direction, each once across pages', async () => {
    const person = await reader();
    const byName = await read(person, { sort: 'name' });
    expect(byName.map(({ name }) => name).sort()).toEqual([...names].sort());
    expect(byName.map(({ name }) => name.toLowerCase()).slice(0, 5)).toEqual([
      'alpha',
      'alpha',
      'alpha',
      'beta',
      'beta',
    ]);
    const byEnd = await read(person, { sort: 'expires' });
    expect(rising(byEnd.map(expiryOf))).toBe(true);
    expect(byEnd.slice(-2).map(({ expiresAt }) => expiresAt)).toEqual([null, null]);
    const byTime = await read(person, { sort: 'created' });
    expect(rising(byTime.map(({ createdAt }) => Date.parse(createdAt)))).toBe(true);
    for (const [sort, forwards] of Object.entries({ name: byName, expires: byEnd, created: byTime })) {
      const backwards = await read(person, { sort: `-${sort}` });
      expect(backwards.map(({ id }) => id)).toEqual(forwards.map(({ id }) => id).reverse());
    }
    expect(await read(person, {})).toEqual([...byTime].reverse());
  });

  test('an order of the token list can be combined with filters', async () => {
    const found = await read(await reader(), { sort: 'expires', q: 'alpha', status: 'active' });
    expect(found.map(({ name, expiresAt }) => [name, expiresAt === null])).toEqual([
      ['alpha', false],
      ['alpha', false],
      ['Alpha', true],
    ]);
  });
});

const forged = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
const ID = '01890000-0000-7000-8000-000000000000';

test.each([
  ['of another order', 'name', forged(['expires', 1_000, ID])],
  ['with a key of another kind', 'expires', forged(['expires', 'soon', ID])],
  ['with a time that the database cannot store', 'created', forged(['created', 8.64e15, ID])],
  ['with a NUL', 'name', forged(['name', 'a\0b', ID])],
  ['without an id', 'name', forged(['name', 'a', 'b'])],
  ['that is not a list', 'name', forged({ name: 'a' })],
  ['that is not JSON', 'name', 'AAAA'],
])('a token list cursor %s is rejected by name', async (_, sort, cursor) => {
  const response = await ada.call<{ errors: { field: string }[] }>('/v1/tokens', { query: { sort, cursor } });
  expect(response.status).toBe(400);
  expect(response.body.errors.map(({ field }) => field)).toEqual(['cursor']);
});

test('an unknown order of the token list is rejected by name', async () => {
  const response = await ada.call<{ errors: { field: string }[] }>('/v1/tokens', { query: { sort: 'hash' } });
  expect(response.status).toBe(400);
  expect(response.body.errors.map(({ field }) => field)).toEqual(['sort']);
});
