import { ENDPOINTS, type Endpoint, ERROR_CODES, ERRORS, errorCodesOf, openApiDocument } from '../src/index.js';
import { EXAMPLES } from '../src/openapi-examples.js';

const document = openApiDocument();
const text = JSON.stringify(document);
const calls = Object.entries(ENDPOINTS) as [keyof typeof ENDPOINTS, Endpoint][];
type Response = { $ref?: string; headers?: Record<string, unknown>; content?: Record<string, unknown> };
type Operation = {
  operationId: string;
  security: Record<string, string[]>[];
  parameters?: { $ref?: string; name?: string; in?: string; required?: boolean }[];
  requestBody?: { required: boolean; content: Record<string, { schema: object }> };
  responses: Record<string, Response>;
};
const operationOf = (name: keyof typeof ENDPOINTS) => {
  const { method, path } = ENDPOINTS[name];
  return document.paths[path]?.[method.toLowerCase()] as unknown as Operation;
};

const headersOf = (name: keyof typeof ENDPOINTS, status: string) => {
  const { $ref = '' } = operationOf(name).responses[status] ?? {};
  const named = document.components['responses'] as Record<string, Response>;
  return Object.keys(named[$ref.replace('#/components/responses/', '')]?.headers ?? {});
};

it('the document describes every call once, with its responses and every error that it can return', () => {
  const operations = Object.values(document.paths).flatMap((path) => Object.values(path)) as unknown as Operation[];
  expect(operations.map((o) => o.operationId).sort()).toEqual(calls.map(([name]) => name).sort());
  for (const [name, endpoint] of calls) {
    const { responses } = operationOf(name);
    const statuses = new Set([
      ...Object.keys(endpoint.answers),
      ...errorCodesOf(endpoint).map((code) => String(ERRORS[code].status)),
    ]);
    expect({ name, statuses: Object.keys(responses).sort() }).toEqual({ name, statuses: [...statuses].sort() });
  }
});

it('every reference resolves, and no component is unused', () => {
  const references = new Set([...text.matchAll(/"\$ref":"#\/components\/([^"]+)"/g)].map((match) => match[1]));
  const components = Object.entries(document.components)
    .filter(([kind]) => kind !== 'securitySchemes')
    .flatMap(([kind, named]) => Object.keys(named).map((name) => `${kind}/${name}`));
  expect([...references].sort()).toEqual(components.sort());
  expect(text).not.toContain('$defs');
});

it('each call requires the scope of the table', () => {
  expect(operationOf('signIn').security).toEqual([]);
  expect(operationOf('getSelf').security).toEqual([{ bearer: [] }]);
  expect(operationOf('issueToken').security).toEqual([{ bearer: ['tokens:write'] }, { cookie: [] }]);
});

it('parameters, bodies and headers are described as the endpoints accept them', () => {
  const rotate = operationOf('rotateToken');
  expect(rotate.parameters).toEqual([
    expect.objectContaining({ name: 'id', in: 'path', required: true }),
    { $ref: '#/components/parameters/Prefer' },
  ]);
  expect(rotate.requestBody?.required).toBe(false);
  expect(Object.keys(operationOf('introspect').requestBody?.content ?? {})).toEqual([
    'application/x-www-form-urlencoded',
  ]);
  expect(Object.keys(operationOf('exportAudit').responses['200']?.content ?? {})).toEqual([
    'application/x-ndjson',
    'text/csv',
  ]);
  expect(operationOf('getReceipt').responses['200']?.content).toMatchObject({
    'application/json': { schema: { $ref: '#/components/schemas/Receipt' } },
    'application/jwt': { schema: { type: 'string' } },
  });
  expect(operationOf('issueToken').parameters).toContainEqual({ $ref: '#/components/parameters/Idempotency-Key' });
  expect(operationOf('revokeToken').parameters).toContainEqual({ $ref: '#/components/parameters/Prefer' });
  expect(headersOf('getToken', '401')).toContain('WWW-Authenticate');
  expect(headersOf('getToken', '429')).toEqual(expect.arrayContaining(['Retry-After', 'RateLimit']));
});

it('requests reject unknown fields, and responses allow them', () => {
  const { schemas } = document.components;
  expect(schemas['IssueToken']).toMatchObject({ additionalProperties: false });
  expect(schemas['Token']).not.toHaveProperty('additionalProperties');
});

it('the schemas accept every example', () => {
  for (const [name, example] of Object.entries(EXAMPLES)) {
    const { body, answers } = ENDPOINTS[name as keyof typeof ENDPOINTS] as Endpoint;
    if (example.body) expect(body?.safeParse(example.body)).toMatchObject({ success: true });
    const fitting = Object.values(answers).filter((schema) => schema?.safeParse(example.response).success);
    if (example.response) expect({ name, fitting: fitting.length > 0 }).toEqual({ name, fitting: true });
  }
});

it('the document contains nothing with the shape of a secret', () => {
  expect(text).not.toMatch(/_(pat|prj)_[0-9A-Za-z]{36}/);
});

it('the document mentions every error code', () => {
  // Of the gateway, which the document does not describe.
  const proxied = [
    'reload_failed',
    'method_not_allowed',
    'bad_gateway',
    'request_timeout',
    'upstream_timeout',
    'uri_too_long',
  ];
  for (const code of ERROR_CODES.filter((c) => !proxied.includes(c))) expect(text).toContain(`\`${code}\``);
});
