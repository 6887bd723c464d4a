import { buildSchema, type DocumentNode, execute, GraphQLError, getOperationAST, parse, validate } from 'graphql';
import { type Caller, sees } from './caller.js';
import { acceptsExplicitly, byMethod, type Exchange, Problem, readJson, sendJson } from './http.js';
import { isObject, type Read, readDocumentContent, readProjectId, readWhole } from './input.js';
import type { Store } from './store.js';

const SCHEMA = buildSchema(`
  "The caller, as identified by the gateway."
  type Caller { tokenId: String owner: String project: ID scopes: [String!]! requestId: ID! }
  type Project { id: ID! name: String! createdAt: String! }
  type Document { id: ID! projectId: ID! title: String! body: String! version: Int! updatedAt: String! updatedBy: String }
  type Query {
    caller: Caller!
    projects: [Project!]!
    "At most \`first\` (1 to 100) documents of a project, oldest first."
    documents(project: ID!, first: Int = 50): [Document!]!
    document(project: ID!, id: ID!): Document
  }
  type Mutation { createDocument(project: ID!, title: String!, body: String = ""): Document! }
`);

/** A query past this many lexical tokens is refused before it is run: it could otherwise ask for the same list endlessly. */
const TOKENS_MAX = 500;

interface Operation {
  query: string;
  operationName: string | null;
  variables: Record<string, unknown> | null;
}

function must<T>(read: Read<T>): T {
  if (read.ok) return read.value;
  throw new GraphQLError(read.errors.map(({ field, message }) => `${field} ${message}`).join('; '), {
    extensions: { code: 'INVALID_REQUEST', errors: read.errors },
  });
}

function resolvers(store: Store, caller: Caller) {
  const visible = (project: string) => {
    const id = must(readProjectId(project));
    if (sees(caller, id)) return id;
    throw new GraphQLError('There is no project of that id for this token.', { extensions: { code: 'NOT_FOUND' } });
  };
  return {
    caller,
    projects: () => store.projects().filter(({ id }) => sees(caller, id)),
    documents: ({ project, first }: { project: string; first: number }) =>
      store.documents(visible(project)).slice(0, must(readWhole(first, 'first', { min: 1, max: 100, standard: 50 }))),
    document: ({ project, id }: { project: string; id: string }) => store.document(visible(project), id) ?? null,
    createDocument: ({ project, title, body }: { project: string; title: string; body: string }) => {
      const created = store.createDocument(visible(project), must(readDocumentContent({ title, body })), caller.owner);
      if ('refused' in created) throw new GraphQLError(created.detail, { extensions: { code: 'FULL' } });
      return created;
    },
  };
}

function readOperation(input: unknown): Operation {
  const wrong = (field: string, message: string) =>
    new Problem(400, 'invalid_request', `${field} ${message}.`, { errors: [{ field, message }] });
  if (!isObject(input)) throw wrong('The body', 'must be a JSON object with query; batches are not supported');
  const { query, operationName = null, variables = null } = input;
  if (typeof query !== 'string') throw wrong('query', 'must be text');
  if (operationName !== null && typeof operationName !== 'string') throw wrong('operationName', 'must be text');
  if (variables !== null && !isObject(variables)) throw wrong('variables', 'must be a JSON object');
  return { query, operationName, variables };
}

function operationInQuery(parameters: URLSearchParams): Operation {
  let variables: unknown = null;
  try {
    variables = JSON.parse(parameters.get('variables') ?? 'null');
  } catch {
    variables = undefined;
  }
  return readOperation({
    query: parameters.get('query') ?? undefined,
    operationName: parameters.get('operationName'),
    variables: variables === undefined ? 'not JSON' : variables,
  });
}

/**
 * `POST /graphql` with `{query, operationName?, variables?}`, and `GET` with the same in the query string for queries
 * alone. Follows GraphQL over HTTP: 200 with `errors` for application/json, 400 for a request that cannot be run where
 * the caller accepts application/graphql-response+json.
 */
export async function graphql(exchange: Exchange): Promise<void> {
  const { request, url, store, caller } = exchange;
  const operation = await byMethod(request, {
    GET: async () => operationInQuery(url.searchParams),
    POST: async () => readOperation(await readJson(request)),
  })();

  const modern = acceptsExplicitly(request, 'application/graphql-response+json');
  const respond = (status: number, body: unknown) =>
    sendJson(
      exchange,
      status,
      body,
      modern ? { 'content-type': 'application/graphql-response+json; charset=utf-8' } : {},
    );
  const unrunnable = (errors: readonly GraphQLError[]) => respond(modern ? 400 : 200, { errors });

  let document: DocumentNode;
  try {
    document = parse(operation.query, { maxTokens: TOKENS_MAX });
  } catch (error) {
    if (error instanceof GraphQLError) return unrunnable([error]);
    throw error;
  }
  const errors = validate(SCHEMA, document, undefined, { maxErrors: 10 });
  if (errors.length > 0) return unrunnable(errors);
  if (request.method !== 'POST' && getOperationAST(document, operation.operationName)?.operation === 'mutation') {
    throw new Problem(405, 'method_not_allowed', 'A mutation needs POST.', { headers: { allow: 'POST' } });
  }

  const result = await execute({
    schema: SCHEMA,
    document,
    rootValue: resolvers(store, caller),
    operationName: operation.operationName,
    variableValues: operation.variables,
  });
  if (result.data === undefined) return unrunnable(result.errors ?? []);
  respond(200, result);
}
