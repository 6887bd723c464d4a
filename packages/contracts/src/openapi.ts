import { z } from 'zod';
import { ERRORS, type ErrorCode, problem, problemSchema } from './errors.js';
import { ENDPOINTS, type Endpoint, type EndpointName } from './http/endpoints.js';
import { SESSION_COOKIE } from './identity.js';
import { EXAMPLES } from './openapi-examples.js';

type Json = { [name: string]: unknown };
/** Components collected while calls are described. */
interface Collected {
  schemas: Record<string, Json>;
  responses: Record<string, Json>;
}
/** An OpenAPI 3.1 document, as plain JSON. */
export interface OpenApiDocument extends Json {
  openapi: '3.1.1';
  paths: Record<string, Record<string, Json>>;
  components: { schemas: Record<string, Json>; [kind: string]: Json };
}

const TAGS: Record<Endpoint['tag'], string> = {
  Sessions: 'Signing in with a password, and the session cookie.',
  Tokens: 'Issue, see, change, rotate and revoke tokens.',
  People: 'The people who own personal tokens.',
  Projects: 'The projects that own project tokens, and the roles of their members.',
  Audit: 'Who changed what, tamper-evident; why a request was denied.',
  System: 'The verifiers, and the state of the system.',
  'OAuth 2.0': 'The same tokens through the endpoints of RFC 7662 and RFC 7009.',
};

const DESCRIPTION = `The same permission rules apply to every call, by a signed-in person (cookie) or by a Bearer \
token with the scope given for the call. Times are RFC 3339 in UTC, ids are UUIDs (version 7), unknown fields are \
rejected by name. Errors are RFC 9457 problem details with a code from a closed list.

A change that narrows rights returns \`effective: true\` once no verifier anywhere accepts the token in a check that \
starts later, with a receipt of how each verifier confirmed it. \`Prefer: wait=N\` bounds the wait; a change not \
confirmed by then returns 202.`;

const HEADER_PARAMETERS: Record<'Idempotency-Key' | 'Prefer', Json> = {
  'Idempotency-Key': {
    name: 'Idempotency-Key',
    in: 'header',
    description:
      'Identifies this change: repeated with the same body, it returns 200 with the record and no secret; with another body, 409.',
    schema: { type: 'string', minLength: 1, maxLength: 255 },
  },
  Prefer: {
    name: 'Prefer',
    in: 'header',
    description: 'RFC 7240. `wait=N`: return 202 after N seconds when the change is not effective everywhere by then.',
    schema: { type: 'string', pattern: '^wait=\\d{1,4}$' },
    example: 'wait=0',
  },
};

const RESPONSE_HEADERS: Record<string, Json> = {
  'X-Request-Id': {
    description: 'The id of the request in logs and audit events.',
    schema: { type: 'string' },
  },
  'WWW-Authenticate': {
    description: 'The challenge of RFC 6750 section 3.',
    schema: { type: 'string' },
    example: 'Bearer realm="latchkey", error="invalid_token", error_description="The token is not accepted"',
  },
  'Retry-After': { description: 'Seconds to wait before trying again.', schema: { type: 'integer', minimum: 0 } },
  RateLimit: { description: 'The rest of the limit, and the seconds until it is reset.', schema: { type: 'string' } },
};

/**
 * The OpenAPI 3.1 document of the management API, generated from ENDPOINTS. Pure: the same arguments give the same text.
 * @param serverUrl the public address; by default relative to the document's own
 * @param sessionCookie name of the session cookie; the one over plain http by default
 */
export function openApiDocument({
  serverUrl = '/',
  sessionCookie = SESSION_COOKIE,
  version = '1',
} = {}): OpenApiDocument {
  const collected: Collected = { schemas: {}, responses: {} };
  const paths: OpenApiDocument['paths'] = {};
  for (const [name, endpoint] of Object.entries(ENDPOINTS) as [EndpointName, Endpoint][]) {
    paths[endpoint.path] = {
      ...paths[endpoint.path],
      [endpoint.method.toLowerCase()]: operation(name, endpoint, collected),
    };
  }
  schemaOf(problemSchema, 'output', collected);
  return {
    openapi: '3.1.1',
    info: {
      title: 'Latchkey management API',
      version,
      description: DESCRIPTION,
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: serverUrl }],
    tags: Object.entries(TAGS).map(([name, description]) => ({ name, description })),
    paths,
    components: {
      schemas: sorted(collected.schemas),
      responses: sorted(collected.responses),
      securitySchemes: {
        bearer: {
          type: 'http',
          scheme: 'bearer',
          bearerFormat: '<prefix>_<pat|prj>_<36 characters>',
          description: 'RFC 6750: `Authorization: Bearer <secret>`. Never in the URL or a form.',
        },
        cookie: {
          type: 'apiKey',
          in: 'cookie',
          name: sessionCookie,
          description: 'Of a signed-in person; ignored with a Bearer token.',
        },
      },
      headers: RESPONSE_HEADERS,
      parameters: HEADER_PARAMETERS,
    },
  };
}

function operation(name: EndpointName, endpoint: Endpoint, collected: Collected): Json {
  const parameters = [
    ...parametersOf(endpoint.params, 'path', collected),
    ...parametersOf(endpoint.query, 'query', collected),
    ...(endpoint.headers ?? []).map((header) => ({ $ref: `#/components/parameters/${header}` })),
  ];
  const example = EXAMPLES[name];
  return {
    operationId: name,
    summary: endpoint.summary,
    description: whoMayCall(endpoint),
    tags: [endpoint.tag],
    security: securityOf(endpoint),
    ...(parameters.length ? { parameters } : {}),
    ...(endpoint.body
      ? {
          requestBody: {
            required: !endpoint.bodyOptional,
            content: {
              [endpoint.bodyType === 'form' ? 'application/x-www-form-urlencoded' : 'application/json']: {
                schema: schemaOf(endpoint.body, 'input', collected),
                ...(example?.body ? { example: example.body } : {}),
              },
            },
          },
        }
      : {}),
    responses: { ...successes(endpoint, example?.response, collected), ...failures(endpoint, collected) },
  };
}

function whoMayCall({ scope }: Endpoint): string {
  if (scope === 'none') return 'Needs no sign-in and no token.';
  if (scope === 'self') return 'Any token, about itself; not for signed-in people.';
  if (scope === 'person') return 'A signed-in person; no token, whatever its scopes.';
  if (scope === 'signed-in') return 'Any signed-in person or token.';
  return `A signed-in person, or a token with the scope \`${scope}\`.`;
}

function securityOf({ scope }: Endpoint): Json[] {
  if (scope === 'none') return [];
  if (scope === 'self') return [{ bearer: [] }];
  if (scope === 'person') return [{ cookie: [] }];
  return [{ bearer: scope === 'signed-in' ? [] : [scope] }, { cookie: [] }];
}

function parametersOf(schema: z.ZodType | undefined, place: 'path' | 'query', collected: Collected): Json[] {
  if (!schema) return [];
  const { properties = {}, required = [] } = schemaOf(schema, 'input', collected) as {
    properties?: Record<string, Json>;
    required?: string[];
  };
  return Object.entries(properties).map(([name, { description, ...rest }]) => ({
    name,
    in: place,
    ...(description ? { description } : {}),
    required: place === 'path' || required.includes(name),
    schema: rest,
  }));
}

const JWT = { schema: { type: 'string' } };

function successes(endpoint: Endpoint, example: unknown, collected: Collected): Json {
  const meanings: Record<string, string> = {
    200: endpoint.headers?.includes('Idempotency-Key') ? 'It was made before; the secret is not shown again' : 'Done',
    201: 'Made; only this response contains the secret',
    202: endpoint.headers?.includes('Prefer') ? 'Done, not yet effective everywhere' : 'Accepted',
    204: 'Done',
    302: 'Redirect',
  };
  if (endpoint.headers?.includes('Prefer')) meanings[200] = 'Done, and effective everywhere';
  const entries = Object.entries(endpoint.answers);
  return Object.fromEntries(
    entries.map(([status, schema], at) => {
      const body = schema && {
        schema: schemaOf(schema, 'output', collected),
        ...(example && status === String(Math.max(...entries.map(([s]) => Number(s)).filter((s) => s !== 202)))
          ? { example }
          : {}),
      };
      const types = endpoint.answerTypes ?? ['application/json'];
      const secret = schema && 'secret' in ((schema as z.ZodObject).shape ?? {});
      return [
        status,
        {
          description: status === '201' && !secret ? 'Made' : (meanings[status] ?? `Response ${at}`),
          headers: headersOf('X-Request-Id'),
          ...(body
            ? { content: Object.fromEntries(types.map((type) => [type, type === 'application/jwt' ? JWT : body])) }
            : {}),
        },
      ];
    }),
  );
}

/** Every error code that the call can return. */
export function errorCodesOf(endpoint: Endpoint): ErrorCode[] {
  const codes: ErrorCode[] = ['invalid_request', 'rate_limited', 'header_too_large', 'internal', 'unavailable'];
  if (endpoint.scope !== 'none')
    codes.push('unauthenticated', 'invalid_token', 'address_not_allowed', 'forbidden', 'restored');
  if (/^[a-z]+:/.test(endpoint.scope)) codes.push('insufficient_scope');
  if (endpoint.method !== 'GET' && endpoint.scope !== 'self') codes.push('cross_site');
  if (endpoint.params || endpoint.scope === 'self') codes.push('not_found');
  if (endpoint.body) codes.push('too_large', 'unsupported_media_type');
  return [...new Set([...codes, ...(endpoint.errors ?? [])])];
}

/** References to one named response per status and set of codes. */
function failures(endpoint: Endpoint, { responses }: Collected): Json {
  const byStatus = new Map<number, ErrorCode[]>();
  for (const code of errorCodesOf(endpoint)) {
    const { status } = ERRORS[code];
    byStatus.set(status, [...(byStatus.get(status) ?? []), code]);
  }
  return Object.fromEntries(
    [...byStatus].map(([status, codes]) => {
      const name = [status, ...codes.sort()].join('.');
      responses[name] = {
        description: codes.map((code) => `\`${code}\`: ${ERRORS[code].title}`).join('; '),
        headers: headersOf('X-Request-Id', ...headersOfStatus(status)),
        content: {
          'application/problem+json': {
            schema: { $ref: '#/components/schemas/Problem' },
            examples: Object.fromEntries(codes.map((code) => [code, { value: exampleOf(code) }])),
          },
        },
      };
      return [String(status), { $ref: `#/components/responses/${name}` }];
    }),
  );
}

const exampleOf = (code: ErrorCode) => problem(code, ERRORS[code].meaning, '019f8a6e-7a10-7c3e-9d51-2f1f0c3b8a77');

function headersOfStatus(status: number): string[] {
  if (status === 401 || status === 403) return ['WWW-Authenticate'];
  if (status === 429) return ['Retry-After', 'RateLimit'];
  return status === 503 ? ['Retry-After'] : [];
}

const headersOf = (...names: string[]) =>
  Object.fromEntries(names.map((name) => [name, { $ref: `#/components/headers/${name}` }]));

/** A schema in place, or a reference to it where it has a name (`.meta({id})`); named ones are collected. */
function schemaOf(schema: z.ZodType, io: 'input' | 'output', collected: Collected): Json {
  const {
    $schema: _,
    $defs = {},
    ...inPlace
  } = z.toJSONSchema(schema, {
    io,
    unrepresentable: 'any',
    override: ({ zodSchema, jsonSchema }) => {
      // The format is enough; the pattern is four lines long.
      if (jsonSchema.format === 'date-time' || jsonSchema.format === 'email') delete jsonSchema.pattern;
      // Responses can grow: clients must accept new fields.
      if (io === 'output' && zodSchema._zod.def.type === 'object' && !zodSchema._zod.def.catchall)
        delete jsonSchema.additionalProperties;
    },
  }) as Json & { $defs?: Record<string, Json> };
  for (const [name, definition] of Object.entries(pointed($defs) as Record<string, Json>)) {
    const present = collected.schemas[name];
    if (present && JSON.stringify(present) !== JSON.stringify(definition))
      throw new Error(`two different schemas are named ${name}`);
    collected.schemas[name] = definition;
  }
  return pointed(inPlace) as Json;
}

function pointed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(pointed);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, inner]) =>
      name === '$ref' && typeof inner === 'string'
        ? [name, inner.replace('#/$defs/', '#/components/schemas/')]
        : [name, pointed(inner)],
    ),
  );
}

const sorted = <T>(record: Record<string, T>): Record<string, T> =>
  Object.fromEntries(Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1)));
