import type { DemoUpstream } from '../src/index.js';
import { identity, jsonOf, OTHER, PROJECT, start } from './start.js';

let demo: DemoUpstream;
beforeAll(async () => {
  demo = await start();
});
afterAll(() => demo.close());

async function run(query: string, variables?: object, headers: Record<string, string> = {}) {
  const response = await fetch(`${demo.url}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify({ query, variables }),
  });
  return { status: response.status, type: response.headers.get('content-type'), body: await jsonOf(response) };
}

it('creates a document that queries then find, in the name of the caller', async () => {
  const create = 'mutation ($p: ID!) { createDocument(project: $p, title: "Graph") { id updatedBy } }';
  const { body } = await run(create, { p: PROJECT }, identity());
  expect(body.data.createDocument.updatedBy).toBe('user:01890000-0000-7000-8000-0000000000bb');
  const find =
    'query ($p: ID!, $id: ID!) { caller { owner } document(project: $p, id: $id) { title } documents(project: $p) { id } }';
  const found = await run(find, { p: PROJECT, id: body.data.createDocument.id });
  expect(found.body.data.document.title).toBe('Graph');
  expect(found.body.data.documents).toContainEqual({ id: body.data.createDocument.id });
});

it('hides every project but the one the gateway named', async () => {
  const { body } = await run(
    'query ($o: ID!) { projects { id } other: documents(project: $o) { id } }',
    { o: OTHER },
    identity(PROJECT),
  );
  expect(body.errors[0].extensions.code).toBe('NOT_FOUND');
  expect((await run('{ projects { id } }', {}, identity(PROJECT))).body.data.projects).toEqual([{ id: PROJECT }]);
});

it('runs queries by GET, and rejects mutations by GET', async () => {
  const get = (query: string) => fetch(`${demo.url}/graphql?${new URLSearchParams({ query })}`);
  expect(await jsonOf(await get('{ projects { name } }'))).toMatchObject({
    data: { projects: [{ name: 'Observatory' }, { name: 'Bakery' }] },
  });
  const refused = await get(`mutation { createDocument(project: "${PROJECT}", title: "x") { id } }`);
  expect([refused.status, refused.headers.get('allow')]).toEqual([405, 'POST']);
});

it('returns errors as GraphQL over HTTP requires for each media type', async () => {
  for (const query of ['{', '{ nothing }', 'query A { __typename } query B { __typename }']) {
    expect((await run(query)).status).toBe(200);
    const modern = await run(query, undefined, { accept: 'application/graphql-response+json' });
    expect(modern.status).toBe(400);
    expect(modern.type).toContain('application/graphql-response+json');
    expect(modern.body.errors.length).toBeGreaterThan(0);
    expect(modern.body).not.toHaveProperty('data');
  }
});

it('names the input that is wrong', async () => {
  expect((await run('{ documents(project: "nope") { id } }')).body.errors[0]).toMatchObject({
    path: ['documents'],
    extensions: { errors: [{ field: 'project' }] },
  });
  expect((await run(`{ documents(project: "${PROJECT}", first: 101) { id } }`)).body.errors[0].message).toContain(
    'first',
  );
  for (const [field, body] of Object.entries({
    query: {},
    operationName: { query: '{a}', operationName: 1 },
    variables: { query: '{a}', variables: [] },
  })) {
    const response = await fetch(`${demo.url}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    expect([response.status, (await jsonOf(response)).errors[0].field]).toEqual([400, field]);
  }
});

it('refuses a query that asks for the same list endlessly', async () => {
  const many = Array.from({ length: 200 }, (_, i) => `a${i}: projects { id }`).join(' ');
  const { body } = await run(`{ ${many} }`);
  expect(body.errors[0].message).toContain('tokens');
});
